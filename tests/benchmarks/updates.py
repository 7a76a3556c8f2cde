"""Speed of compiled optimizer steps over torch's own, float32.

What counts is the time within `optimizer.step()`, summed over a few steps. Before each, outside of
that time, gradients are set to None and new gradient tensors are made, the last parameter's first,
as zero_grad and a backward pass do it. Each round makes parameters and optimizers anew, as speed
depends on which memory they happen to get.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import flowopt as fo
from tests.benchmarks.measure import Comparison, seconds

NETWORK = [(512, 100), *[(256, 240), (240,)] * 46, (240, 10_455)]
SHAPES = {
    "94 tensors, 5.4 M": NETWORK,
    "2000 tensors of 1000": [(1000,)] * 2000,
    "one tensor of 50 M": [(50_000_000,)],
}
# Bars of a preset on the three sets of tensors, and those that differ.
BARS = (0.9, 0.4, 1.05)
OTHER_BARS = {"RMSprop": (0.4, 0.4, 1.05), "Adam": (0.9, 0.35, 1.0)}
PRESETS: dict[str, tuple[dict, dict]] = {
    "Adam": ({"lr": 1e-3}, {"fused": True}),
    "AdamW": ({"lr": 1e-3}, {"fused": True}),
    "SGD": ({"lr": 1e-3}, {"fused": True}),
    "SGD momentum": ({"lr": 1e-3, "momentum": 0.9}, {"fused": True}),
    "Adagrad": ({"lr": 1e-3}, {"fused": True}),
    "RMSprop": ({"lr": 1e-3}, {"foreach": True}),
}
ADAM_AS_TEXT = """
    scalar u_m
    scalar u_v
    T: du_m/dt = a*(1 - u_m)
    T: du_v/dt = b*(1 - u_v)
    M: dm/dt = a*(g - m)
    V: dv/dt = b*(g**2 - v)
    A: dtheta/dt = -(m/u_m)/(sqrt(v/u_v) + eps)
"""
STEPS, WARM_UP = 10, 2
LANGEVIN_BAR, LISTS_BAR = 0.5, 1.3
# Steps of which nearly all is what leads to them, and to be as short as torch's.
SMALL, SMALL_BAR = [(1,)] * 94, 1.0

Build = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Training:
    """An optimizer with new gradient tensors at every step."""

    def __init__(self, shapes: list[tuple[int, ...]], build: Build):
        generator = torch.Generator().manual_seed(0)
        self.parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        self.gradients = [torch.rand(s, generator=generator) - 0.5 for s in shapes]
        self.optimizer = build(self.parameters)

    def step(self) -> float:
        """Seconds of one step."""
        self.optimizer.zero_grad()
        pairs = zip(self.parameters, self.gradients, strict=True)
        for parameter, gradient in reversed(list(pairs)):
            parameter.grad = gradient.clone()
        return seconds(self.optimizer.step)

    @classmethod
    def run(cls, shapes: list[tuple[int, ...]], build: Build) -> float:
        """Seconds of a few steps of a new optimizer."""
        training = cls(shapes, build)
        return sum([training.step() for _ in range(WARM_UP + STEPS)][WARM_UP:])


def _against_torch(
    name: str, ours: Build, peer: Build, bars: tuple[float, ...]
) -> list[Comparison]:
    return [
        Comparison(
            f"{name}, {label}",
            partial(Training.run, shapes, ours),
            partial(Training.run, shapes, peer),
            bar,
        )
        for (label, shapes), bar in zip(SHAPES.items(), bars, strict=True)
    ]


def _builds(name: str) -> tuple[Build, Build]:
    """Ours and torch's."""
    settings, best = PRESETS[name]
    kind = name.partition(" ")[0]
    ours = partial(getattr(fo.optim, kind), **settings, compile=True)
    return ours, partial(getattr(torch.optim, kind), **settings, **best)


def _preset(name: str) -> list[Comparison]:
    return _against_torch(name, *_builds(name), OTHER_BARS.get(name, BARS))


def _small(name: str) -> Comparison:
    ours, peer = (partial(Training.run, SMALL, build) for build in _builds(name))
    return Comparison(f"{name}, 94 tensors of one number", ours, peer, SMALL_BAR)


def _text() -> list[Comparison]:
    """A user's equation that costs what Adam does, against torch's Adam."""
    flow = fo.Flow.from_text(ADAM_AS_TEXT, a=100.0, b=1.0, eps=1e-8)
    ours = partial(
        fo.optim.FlowOptimizer, flow=flow, scheme=fo.Splitting("TMVA"), lr=1e-3, compile=True
    )
    peer = partial(torch.optim.Adam, lr=1e-3, fused=True)
    return _against_torch("Adam as a text", ours, peer, OTHER_BARS["Adam"])


def _langevin() -> Comparison:
    """Against torch's normal generator alone drawing those numbers."""
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    build = partial(
        fo.optim.FlowOptimizer, flow=flow, scheme=fo.Splitting("BAOA"), lr=1e-2, compile=True
    )

    def normals() -> list[Tensor]:
        return [torch.randn(shape) for shape in NETWORK]

    return Comparison(
        "Langevin BAOA, 94 tensors, against normals alone",
        partial(Training.run, NETWORK, build),
        lambda: sum([seconds(normals) for _ in range(WARM_UP + STEPS)][WARM_UP:]),
        LANGEVIN_BAR,
    )


def _lists(name: str) -> list[Comparison]:
    """Eager steps over lists of tensors, against torch's own."""
    build = partial(getattr(fo.optim, name), lr=1e-3)
    peer = partial(getattr(torch.optim, name), lr=1e-3, foreach=True)
    return _against_torch(f"{name} without a kernel", build, peer, (LISTS_BAR,) * len(SHAPES))


def comparisons() -> list[Comparison]:
    """All comparisons of this file."""
    found = [comparison for name in PRESETS for comparison in _preset(name)]
    lists = [comparison for name in ("SGD", "Adam", "RMSprop") for comparison in _lists(name)]
    small = [_small(name) for name in ("SGD", "Adam")]
    return [*found, *_text(), _langevin(), *small, *lists]
