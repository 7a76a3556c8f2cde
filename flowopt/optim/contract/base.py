"""What all optimizers here are to torch."""

from typing import Self

import torch

OUT = "kept_out_of_graphs"


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer whose step `torch.compile` calls and does not look into.

    What it would find there is Python that prepares a step, and kernels, which can not be traced. A
    model that was compiled is compiled in a closure too.
    """

    def __new__(cls, *_: object, **__: object) -> Self:
        """Made when the first of its class is, as torch imports its compiler only then."""
        owner = next(kind for kind in cls.__mro__ if "step" in vars(kind))
        if not hasattr(owner.step, OUT):
            step = torch.compiler.disable(owner.step)
            setattr(step, OUT, True)
            owner.step = step
        return super().__new__(cls)
