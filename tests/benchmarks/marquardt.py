"""Levenberg–Marquardt against Adam on two small networks: `python -m tests.benchmarks.marquardt`.

Steps, cost and seconds until the training loss is at a target, Adam with the best of its rates.
Cost in forward passes: a loss with its gradient is 3, a product with the Jacobian of the outputs or
its transpose 2, the outputs before it 1; what solves systems is in the seconds alone.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import sklearn.datasets
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import flowopt as fo
from tests.benchmarks.measure import Ratio, ratio_of

RATES = (3e-3, 1e-2, 3e-2)
MOST_STEPS = 8000


@dataclass(frozen=True)
class Reached:
    """What it took until the target was reached, or the most steps taken."""

    name: str
    steps: int
    cost: int
    seconds: float
    loss: float


def diabetes() -> tuple[fo.problems.Network, float]:
    """442 patients, 10–15–15–1 tanh, mean squared error of a standardised target."""
    inputs, targets = map(torch.from_numpy, sklearn.datasets.load_diabetes(return_X_y=True))
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    targets = ((targets - targets.mean()) / targets.std())[:, None]
    return fo.problems.network(_network(10, 15, 15, 1), mse_loss, (inputs, targets)), 1e-3


def spirals() -> tuple[fo.problems.Network, float]:
    """200 points of two spirals, 2–12–12–2 tanh, cross-entropy."""
    angle = torch.linspace(0.5, 3.0 * torch.pi, 100, dtype=torch.float64)
    arm = torch.stack([angle * angle.cos(), angle * angle.sin()], -1) / 5.0
    labels = torch.arange(2).repeat_interleave(100)
    data = (torch.cat([arm, -arm]), labels)
    return fo.problems.network(_network(2, 12, 12, 2), cross_entropy, data), 1e-5


def _network(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        layer for n, m in itertools.pairwise(widths) for layer in (nn.Linear(n, m), nn.Tanh())
    ]
    return nn.Sequential(*layers[:-1]).double()


def marquardt(problem: fo.problems.Network, iterations: int | None) -> Iterator[tuple[float, int]]:
    """Loss and cost, step by step."""
    module = problem.module
    optimizer = fo.optim.LevenbergMarquardt(module.parameters(), iterations=iterations)
    for step in itertools.count(1):
        loss = optimizer.step(residuals=problem).item()
        counts = optimizer.counts
        # A step begins with a gradient, a trial with outputs and ends with a gradient.
        trials = counts["gradients"] + counts["losses"] - step
        yield loss, fo.forward_passes(counts) + trials


def adam(problem: fo.problems.Network, rate: float) -> Iterator[tuple[float, int]]:
    """The same of torch's Adam."""
    module, cost = problem.module, 0
    function = cross_entropy if problem.targets.ndim == 1 else mse_loss
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    while True:
        optimizer.zero_grad()
        loss = function(module(problem.inputs), problem.targets)
        loss.backward()
        optimizer.step()
        cost += 3
        yield loss.item(), cost


def reach(name: str, target: float, run: Iterator[tuple[float, int]]) -> Reached:
    """Steps until the target."""
    begin = time.perf_counter()
    last = next(
        (step, *found) for step, found in enumerate(run) if found[0] <= target or step == MOST_STEPS
    )
    step, loss, cost = last
    return Reached(name, step, cost, time.perf_counter() - begin, loss)


def runs(make: Callable) -> list[Reached]:
    """Both, dense and by conjugate gradients, and Adam with every rate."""
    found = []
    for name, iterations in (("LM, dense", None), ("LM, 20 iterations", 20)):
        problem, target = make()
        found.append(reach(name, target, marquardt(problem, iterations)))
    for rate in RATES:
        problem, target = make()
        found.append(reach(f"Adam, lr {rate:g}", target, adam(problem, rate)))
    return found


class ToTarget(NamedTuple):
    """Seconds to the target over those of Adam with its best rate, once."""

    make: Callable

    @property
    def name(self) -> str:
        """Of the data."""
        return f"Levenberg-Marquardt, {self.make.__name__}"

    def measure(self, rounds: int) -> list[Ratio]:
        """One row."""
        dense, _, *others = runs(self.make)
        target = self.make()[1]
        best = min((r for r in others if r.loss <= target), key=lambda r: r.seconds)
        return [ratio_of(f"{self.name} / {best.name}", [[dense.seconds, best.seconds]], 1.0)]


def comparisons() -> list[ToTarget]:
    """Both networks."""
    return list(map(ToTarget, (diabetes, spirals)))


def main() -> None:
    """Prints the table."""
    for make in (diabetes, spirals):
        target = make()[1]
        print(f"{make.__doc__} Until the loss is {target:g}:\n")
        print("| optimizer | steps | forward passes | seconds |\n|---|---|---|---|")
        for r in runs(make):
            far = "" if r.loss <= target else f" (loss {r.loss:.2g})"
            print(f"| {r.name} | {r.steps}{far} | {r.cost} | {r.seconds:.2f} |")
        print()


if __name__ == "__main__":
    main()
