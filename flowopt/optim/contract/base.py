"""What all optimizers here are to torch."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

import torch
from torch._C._autograd import _profiler_enabled
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

OUT = "kept_out_of_graphs"
REPEATS = "may_be_repeated"


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer whose step `torch.compile` calls and does not look into.

    What it would find there is Python that prepares a step, and kernels, which can not be traced. A
    model that was compiled is compiled in a closure too.
    """

    # Kernels, where steps are compiled: only those are repeated.
    _native: Any = None

    def __new__(cls, *_: object, **__: object) -> Self:
        """Made when the first of its class is, as torch imports its compiler only then."""
        owner = next(kind for kind in cls.__mro__ if "step" in vars(kind))
        if not hasattr(owner.step, OUT):
            step = torch.compiler.disable(owner.step)
            setattr(step, OUT, True)
            owner.step = repeats(step) if _may_be_repeated(owner.step) else step
        return super().__new__(cls)

    def _patch_step_function(self) -> None:
        """Lets torch put hooks and profiles around the step, and steps without where none are."""
        kind = type(self)
        # A user's own step is taken as it is.
        repeated = _may_be_repeated(kind.step)
        super()._patch_step_function()
        if repeated:
            kind.step = _shortened(kind.step)

    def _repeated_step(self) -> bool:
        """Takes a step if it is like the last one; whether it was taken."""
        return False


def repeats(step: Callable) -> Callable:
    """Says of a step that `_repeated_step` may take its place."""
    setattr(step, REPEATS, step)
    return step


def _may_be_repeated(step: Callable) -> bool:
    """Whether `repeats` was said of a step; what wraps it takes over attributes, and is another."""
    return getattr(step, REPEATS, None) is step


def _shortened(hooked: Callable) -> Callable:
    """A step that takes the short way where nothing has changed and nobody looks."""

    @wraps(hooked)
    def step(self: Optimizer, closure: Callable | None = None, **options: object) -> object:
        if (
            self._native is not None
            and closure is None
            and not options
            # Torch's compiler does not look behind it, and where it is at work, runs what it knows.
            and not torch.compiler.is_dynamo_compiling()
            and get_eval_frame_callback() is None
            and not _is_watched(self)
            and self._repeated_step()
        ):
            return None
        return hooked(self, closure, **options)

    return step


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether a step has hooks or a profile."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or _profiler_enabled()
    )
