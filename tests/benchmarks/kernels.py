"""Speed of native kernels over eager torch: whole `integrate` calls of the same objects."""

from functools import partial

import torch
from torch import Tensor

import flowopt as fo
from tests.benchmarks.eager import TwoParameters
from tests.benchmarks.measure import Comparison, compare

TRAJECTORIES = 57_600
SHORT, LONG = 300, 3000
# Native code has to be so many times faster than eager torch.
BAR = 1 / 20


class Network:
    """A 1–8–1 network of tanh units on 32 points, mean of squares."""

    dim = 25

    def __init__(self):
        self.inputs = torch.linspace(-1.0, 1.0, 32, dtype=torch.float64)
        self.targets = torch.sin(3.0 * self.inputs)

    def loss(self, theta: Tensor) -> Tensor:
        """(*batch, 25) → (*batch,)."""
        slope, shift, out = theta[..., None, :8], theta[..., None, 8:16], theta[..., None, 16:24]
        hidden = torch.tanh(self.inputs[:, None] * slope + shift)
        outputs = (hidden * out).sum(-1) + theta[..., 24:]
        return ((outputs - self.targets) ** 2).mean(-1)


def _starts(count: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 4.0 * torch.rand(count, dim, generator=generator, dtype=torch.float64) - 2.0


def comparisons() -> list[Comparison]:
    """All comparisons of this file."""
    flows, two, network = fo.flows, TwoParameters(), Network()
    start, replicas = _starts(TRAJECTORIES, 2), _starts(10_000, network.dim) / 4.0
    adam = fo.classic.adam(lr=0.01)
    thermal = flows.langevin(friction=1.0, temperature=0.1)
    kicked = "A: dtheta/dt = -g + sqrt(2*temperature)*dW/dt"
    overdamped = fo.Flow.from_text(kicked, temperature=0.1)
    settled = fo.stop.gradient(1e-6)

    def row(name, flow, scheme, problem, start, step_size, steps, stop=None) -> Comparison:
        run = partial(
            fo.integrate, flow, scheme, problem, start, step_size=step_size, steps=steps, stop=stop
        )
        count = len(start)
        return compare(
            f"{name}, {count} trajectories, {steps} steps",
            lambda: run(compile=True),
            lambda: run(compile=False),
            bar=BAR,
        )

    descent, word = flows.gradient_flow(), fo.Splitting("A")
    return [
        row("gradient descent with status", descent, word, two, start, 0.1, SHORT),
        row("gradient descent with status", descent, word, two, start, 0.1, LONG),
        row("gradient descent with stopping", descent, word, two, start, 0.1, SHORT, settled),
        row("gradient descent with stopping", descent, word, two, start, 0.1, LONG, settled),
        row("Adam", adam.flow, adam.scheme, two, start, float(adam.step_size), SHORT),
        row("Langevin BAOAB", thermal, fo.Splitting("BAOAB"), two, start, 0.1, SHORT),
        row("Langevin UBU", thermal, fo.Splitting("(AO)B(AO)"), two, start, 0.1, SHORT),
        row("Leimkuhler-Matthews", overdamped, fo.LeimkuhlerMatthews(), two, start, 0.1, SHORT),
        row("Tsitouras", descent, fo.RungeKutta("tsit5"), two, start, 0.1, SHORT),
        row("Dormand-Prince", descent, fo.RungeKutta("dopri5"), two, start, 0.1, SHORT),
        row("network of 25 parameters", descent, fo.Euler(), network, replicas, 0.01, 20),
    ]
