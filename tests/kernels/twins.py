"""Two optimizers of equal parameters: one repeats steps, the other asks everything anew."""

import os
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import flowopt as fo
from flowopt.kernels.native.memory.layout import MEMORY, layout
from flowopt.optim.stepping.again import Again

SHAPES = [(3, 4), (1,), (), (0, 3), (5, 1, 3), (40_000,), (2, 1, 2, 1, 2)]
BAOA = partial(
    fo.optim.FlowOptimizer,
    flow=fo.flows.langevin(friction=1.0, temperature=0.1),
    scheme=fo.Splitting("BAOA"),
    seed=7,
)
METHODS = {
    "SGD": fo.optim.SGD,
    "momentum": partial(fo.optim.SGD, momentum=0.9),
    "Adam": fo.optim.Adam,
    "RMSprop": fo.optim.RMSprop,
    "Langevin": BAOA,
}


needs_memory = pytest.mark.skipif(
    not os.access(MEMORY, os.R_OK), reason="tensors are looked at in /proc/self/mem"
)
# Found once per process: before any test changes how torch makes tensors.
layout()


class Twins:
    """Two optimizers of equal parameters, the second of which never repeats a step."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        method: str = "Adam",
        groups: int = 1,
        shapes: list[tuple[int, ...]] = SHAPES,
    ):
        self.repeated: list[bool] = []
        own = Again.step

        def counted(*arguments: object) -> bool:
            found = own(*arguments)
            self.repeated[-1] |= found
            return found

        monkeypatch.setattr(Again, "step", counted)
        self.sides = [self._side(METHODS[method], groups, shapes) for _ in range(2)]
        self.sides[1].optimizer._repeated_step = lambda: False
        self.generator = torch.Generator().manual_seed(3)

    @staticmethod
    def _side(method: Callable, groups: int, shapes: list[tuple[int, ...]]) -> "Side":
        generator = torch.Generator().manual_seed(1)
        parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        shared = [{"params": parameters[i::groups]} for i in range(groups)]
        return Side(parameters, method(shared, lr=1e-2, compile=True))

    def step(self) -> None:
        """A step of each with the same new gradients."""
        for places in zip(*(side.parameters for side in self.sides), strict=True):
            gradient = torch.randn(places[0].shape, generator=self.generator)
            for parameter in places:
                parameter.grad = gradient.clone()
        self.move()

    def move(self) -> None:
        self.repeated.append(False)
        for side in self.sides:
            side.optimizer.step()

    def begin(self) -> None:
        """Steps until they are repeated."""
        for _ in range(4):
            self.step()
        assert self.repeated[-2:] == [True, True]

    def both(self, change: Callable[["Side"], object]) -> None:
        for side in self.sides:
            change(side)

    def check(self) -> None:
        ours, theirs = (side.everything() for side in self.sides)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


class Side:
    """Parameters and their optimizer."""

    def __init__(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer):
        self.parameters, self.optimizer = parameters, optimizer

    @property
    def group(self) -> dict:
        return self.optimizer.param_groups[0]

    def everything(self) -> list[Tensor]:
        """Parameters, states and numbers."""
        found = [parameter.detach() for parameter in self.parameters]
        for parameter in self.parameters:
            own = self.optimizer.state.get(parameter, {})
            found += [value for value in own.values() if isinstance(value, Tensor)]
            found.append(torch.tensor([*own.get("clock", {}).values()], dtype=torch.float64))
        for group in self.optimizer.param_groups:
            found.append(torch.tensor([group["step"], group["time"]], dtype=torch.float64))
        return found
