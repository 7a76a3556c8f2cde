"""Price of `integrate` and `FlowOptimizer` over loops written by hand for one method.

Both sides have the same loss through autograd, the same status, time and counts, and the same
noise.
"""

import math

import torch
from torch import Tensor, nn

import flowopt as fo
from flowopt.core.interfaces import Key
from flowopt.core.noise import seeded_noise
from tests.benchmarks.measure import Comparison, compare

TRAJECTORIES = 57_600
STEPS = 100
BAR = 1.3


class TwoParameters:
    """A user's loss: one neuron with activation z² − 1 on two points."""

    dim = 2

    def loss(self, theta: Tensor) -> Tensor:
        """(*batch, 2) → (*batch,)."""
        w, b = theta.unbind(-1)
        return 0.25 * ((b * b - 1.0) ** 2 + ((w + b) ** 2 - 1.0) ** 2)


def _starts() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 4.0 * torch.rand(TRAJECTORIES, 2, generator=generator, dtype=torch.float64) - 2.0


def _gradient(loss, theta: Tensor) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(theta)
        (gradient,) = torch.autograd.grad(value.sum(), theta)
    return value.detach(), gradient


class _Book:
    """Status, time and counts of an ensemble, kept by hand."""

    def __init__(self, batch: int):
        self.running = torch.ones(batch, dtype=torch.bool)
        self.diverged = torch.zeros(batch, dtype=torch.bool)
        self.time = torch.zeros(batch, dtype=torch.float64)
        self.steps = torch.zeros(batch, dtype=torch.int64)
        self.gradients = torch.ones(batch, dtype=torch.int64)

    def enter(self, loss: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """Notes a step; returns who took it."""
        finite = torch.isfinite(loss + gradient.sum(-1))
        self.gradients += self.running
        self.diverged |= self.running & ~finite
        taken = self.running & finite
        self.time = torch.where(taken, self.time + step_size, self.time)
        self.steps += taken
        self.running = taken & (self.steps < STEPS)
        return taken


def gradient_descent_by_hand(start: Tensor, step_size: float) -> Tensor:
    """Gradient descent on an ensemble."""
    problem, theta, book = TwoParameters(), start, _Book(len(start))
    value, gradient = _gradient(problem.loss, theta)
    while bool(book.running.any()):
        moved = theta - step_size * gradient
        new_value, new_gradient = _gradient(problem.loss, moved)
        taken = book.enter(new_value, new_gradient, step_size)
        rows = taken[:, None]
        theta = torch.where(rows, moved, theta)
        gradient = torch.where(rows, new_gradient, gradient)
        value = torch.where(taken, new_value, value)
    return theta


def adam_by_hand(start: Tensor, lr: float) -> Tensor:
    """Adam on an ensemble."""
    problem, theta, book = TwoParameters(), start, _Book(len(start))
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    value, gradient = _gradient(problem.loss, theta)
    number = 0
    while bool(book.running.any()):
        number += 1
        new_m = 0.9 * m + 0.1 * gradient
        new_v = 0.999 * v + 0.001 * gradient * gradient
        root = (new_v / (1.0 - 0.999**number)).sqrt() + 1e-8
        moved = theta - lr / (1.0 - 0.9**number) * new_m / root
        new_value, new_gradient = _gradient(problem.loss, moved)
        taken = book.enter(new_value, new_gradient, lr)
        rows = taken[:, None]
        theta, m, v, gradient = (
            torch.where(rows, new, old)
            for new, old in (
                (moved, theta),
                (new_m, m),
                (new_v, v),
                (new_gradient, gradient),
            )
        )
        value = torch.where(taken, new_value, value)
    return theta


def baoab_by_hand(start: Tensor, step_size: float, temperature: float) -> Tensor:
    """Underdamped Langevin dynamics on an ensemble, with the package's noise."""
    problem, theta, book = TwoParameters(), start, _Book(len(start))
    noise = seeded_noise(0, (len(start),), start.device)
    decay = math.exp(-step_size)
    kick = math.sqrt(temperature * (1.0 - decay * decay))
    p = torch.zeros_like(theta)
    value, gradient = _gradient(problem.loss, theta)
    while bool(book.running.any()):
        new_p = p - 0.5 * step_size * gradient
        moved = theta + 0.5 * step_size * new_p
        (normals,) = noise.normal((theta,), Key(book.steps, 0))
        new_p = decay * new_p + kick * normals
        moved = moved + 0.5 * step_size * new_p
        new_value, new_gradient = _gradient(problem.loss, moved)
        new_p = new_p - 0.5 * step_size * new_gradient
        taken = book.enter(new_value, new_gradient, step_size)
        rows = taken[:, None]
        theta, p, gradient = (
            torch.where(rows, new, old)
            for new, old in ((moved, theta), (new_p, p), (new_gradient, gradient))
        )
        value = torch.where(taken, new_value, value)
    return theta


def _network(width: int = 1536) -> tuple[nn.Module, Tensor, Tensor]:
    """784-1536-2048-384-10, 5.1 million parameters, float32, one minibatch of 128."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 2048), nn.ReLU()),
        *(nn.Linear(2048, 384), nn.ReLU(), nn.Linear(384, 10)),
    )
    return module, torch.randn(128, 784), torch.randint(10, (128,))


def train_by_hand(module: nn.Module, data: tuple[Tensor, Tensor], lr: float, steps: int) -> tuple:
    """Adam on a network, in place, with status, time and counts."""
    inputs, targets = data
    parameters = [w.detach().clone() for w in module.parameters()]
    names = [name for name, _ in module.named_parameters()]
    m = [torch.zeros_like(w) for w in parameters]
    v = [torch.zeros_like(w) for w in parameters]
    time, gradients = 0.0, 0

    def evaluate() -> tuple[Tensor, tuple[Tensor, ...]]:
        leaves = [w.detach().requires_grad_() for w in parameters]
        outputs = torch.func.functional_call(module, dict(zip(names, leaves, strict=True)), inputs)
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss.detach(), torch.autograd.grad(loss, leaves)

    loss, gradient = evaluate()
    for number in range(1, steps + 1):
        correction, root = 1.0 - 0.9**number, math.sqrt(1.0 - 0.999**number)
        for w, g, a, b in zip(parameters, gradient, m, v, strict=True):
            a.lerp_(g, 0.1)
            b.mul_(0.999).addcmul_(g, g, value=0.001)
            w.addcdiv_(a, (b.sqrt() / root).add_(1e-8), value=-lr / correction)
        loss, gradient = evaluate()
        gradients = number
        time += lr
        if not bool(torch.isfinite(loss + sum(g.sum() for g in gradient))):
            break
    return parameters, time, gradients


def comparisons() -> list[Comparison]:
    """All comparisons of this file."""
    start, problem = _starts(), TwoParameters()
    flow = fo.flows
    adam = fo.classic.adam(lr=0.01)
    thermal = flow.langevin(friction=1.0, temperature=0.1)

    def ensemble(dynamics, scheme, step_size: float):
        return lambda: fo.integrate(
            dynamics, scheme, problem, start, step_size=step_size, steps=STEPS, compile=False
        )

    module, inputs, targets = _network()
    network = fo.problems.network(module, nn.functional.cross_entropy, (inputs, targets))
    first, steps = network.start(), 20
    gd = ensemble(flow.gradient_flow(), fo.Euler(), 0.1)
    split = ensemble(flow.gradient_flow(), fo.Splitting("A"), 0.1)
    title = f"{TRAJECTORIES} trajectories, two parameters"
    return [
        compare(
            f"gradient descent as Splitting('A'), {title}",
            split,
            lambda: gradient_descent_by_hand(start, 0.1),
            bar=BAR,
        ),
        compare(
            f"gradient descent as Euler(), {title}",
            gd,
            lambda: gradient_descent_by_hand(start, 0.1),
            bar=BAR,
        ),
        compare(
            f"Adam, {title}",
            ensemble(adam.flow, adam.scheme, float(adam.step_size)),
            lambda: adam_by_hand(start, 0.01),
            bar=BAR,
        ),
        compare(
            f"Langevin BAOAB, {title}",
            ensemble(thermal, fo.Splitting("BAOAB"), 0.1),
            lambda: baoab_by_hand(start, 0.1, 0.1),
            bar=BAR,
        ),
        compare(
            f"Adam, network of {network.dim / 1e6:.1f} M parameters, 128 rows",
            lambda: fo.integrate(
                adam.flow, adam.scheme, network, first, step_size=0.01, steps=steps, compile=False
            ),
            lambda: train_by_hand(module, (inputs, targets), 0.01, steps),
            bar=BAR,
        ),
    ]
