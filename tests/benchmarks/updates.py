"""Speed of compiled optimizer steps over torch's own, float32, fresh gradients at every step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import flowopt as fo
from tests.benchmarks.measure import Ratio, compare

NETWORK = [(512, 100), *[(256, 240), (240,)] * 46, (240, 10_455)]
SHAPES = {
    "94 tensors, 5.4 M": NETWORK,
    "2000 tensors of 1000": [(1000,)] * 2000,
    "one tensor of 50 M": [(50_000_000,)],
}
# Bars of a preset on the three sets of tensors.
BARS = (0.9, 0.4, 1.05)
PRESETS: dict[str, tuple[dict, dict]] = {
    "Adam": ({"lr": 1e-3}, {"fused": True}),
    "AdamW": ({"lr": 1e-3}, {"fused": True}),
    "SGD": ({"lr": 1e-3}, {"fused": True}),
    "SGD momentum": ({"lr": 1e-3, "momentum": 0.9}, {"fused": True}),
    "Adagrad": ({"lr": 1e-3}, {"fused": True}),
    "RMSprop": ({"lr": 1e-3}, {"foreach": True}),
}
STEPS = 5
LANGEVIN_BAR = 0.5


class Training:
    """An optimizer with gradients that lie elsewhere at every step, as after set_to_none."""

    def __init__(self, shapes: list[tuple[int, ...]], build: Callable[..., torch.optim.Optimizer]):
        generator = torch.Generator().manual_seed(0)
        self.parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        sets = 2 if sum(p.numel() for p in self.parameters) > 10_000_000 else STEPS
        self.gradients = [
            [torch.randn(s, generator=generator) for s in shapes] for _ in range(sets)
        ]
        self.optimizer = build(self.parameters)

    def run(self) -> None:
        """A few steps."""
        for step in range(STEPS):
            gradients = self.gradients[step % len(self.gradients)]
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()


def _preset(name: str, shapes: str, bar: float, rounds: int) -> Ratio:
    settings, best = PRESETS[name]
    kind = name.partition(" ")[0]
    ours = partial(getattr(fo.optim, kind), **settings, compile=True)
    peer = partial(getattr(torch.optim, kind), **settings, **best)
    return compare(
        f"{name}, {shapes}",
        Training(SHAPES[shapes], ours).run,
        Training(SHAPES[shapes], peer).run,
        bar=bar,
        rounds=rounds,
    )


def _langevin(rounds: int) -> Ratio:
    """Against torch's normal generator alone drawing those numbers."""
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    build = partial(
        fo.optim.FlowOptimizer, flow=flow, scheme=fo.Splitting("BAOA"), lr=1e-2, compile=True
    )
    training = Training(NETWORK, build)

    def normals() -> list[Tensor]:
        return [torch.randn(shape) for _ in range(STEPS) for shape in NETWORK]

    name = "Langevin BAOA, 94 tensors, against normals alone"
    return compare(name, training.run, normals, bar=LANGEVIN_BAR, rounds=rounds)


def ratios(rounds: int = 5) -> list[Ratio]:
    """All comparisons of this file."""
    found = [
        _preset(name, shapes, 0.4 if name == "RMSprop" and bar == BARS[0] else bar, rounds)
        for shapes, bar in zip(SHAPES, BARS, strict=True)
        for name in PRESETS
    ]
    return [*found, _langevin(rounds)]
