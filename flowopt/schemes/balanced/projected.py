"""Projection: a step of any scheme, moved to where the flow's energy ought to be."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal, Scheme
from flowopt.core.state import State, lift
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.schemes.balanced.changing import ChangingScheme

# Iterations beyond which one trial of a shorter step is cheaper.
MOST_ITERATIONS = 50
# Of an energy, in units of the last place of the numbers that it is made of.
ROUNDING = 8.0


class Projected(ChangingScheme):
    """A step z* of another scheme, moved along an energy's slope to the value it ought to have.

    z⁺ = z* + λd with E(z⁺) = T, for schemes of order 1 with T = E(z) + h·Ė(z), for others with
    T = E(z) + h/2·(Ė(z) + Ė(z*)). The direction d has parts u²·∂E/∂θ and ∂E/∂q for every momentum
    q, that is all that E is quadratic in, at z*; the unit u, a time, makes one unit of them. From
    λ = 0, λ ← λ − (E − T)/(d·∇E) until |E − T| is within the tolerance: simplified Newton
    iterations, which take a loss each. Besides, a step takes the gradient at z*.

    `Projected(Euler(), atol=1e-9)` is Bensaid's PGD along the gradient flow, and PM along
    momentum with unit=1.

    A step has no solution where T is below all that the energy can be, and none is found where the
    iterations do not contract: then a control that rejects tries a shorter step, and without one
    the trajectory has diverged. `flowopt.control.Solved` is made for it.

    Args:
        scheme: What proposes z*.
        energy: Name of an energy of the flow; its first by default. It may be a conserved one.
        iterations: At most, from 1 to 50.
        rtol: Largest |E − T| as a share of |T − E(z)| + |E(z*) − T|, of what is to be lost and of
            what the scheme is off by.
        atol: And in the unit of the energy. With both 0 it is what rounding allows.
        unit: u; the size of the step by default.

    Raises:
        ConfigurationError: A number is out of its range.

    Reference:
        Hairer, Lubich & Wanner 2006, Geometric Numerical Integration, algorithm IV.4.2; Calvo,
        Laburta, Montijano & Rández 2010, BIT Numer. Math. 50, 223, for energies that fall; Bensaid,
        Poëtte & Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4.
    """

    solves = True

    def __init__(
        self,
        scheme: Scheme,
        energy: str | None = None,
        *,
        iterations: int = 10,
        rtol: float = 1e-6,
        atol: float = 0.0,
        unit: float | None = None,
    ):
        """See the class."""
        super().__init__(scheme, energy)
        whole = isinstance(iterations, int) and not isinstance(iterations, bool)
        if not (whole and 1 <= iterations <= MOST_ITERATIONS):
            raise ConfigurationError(
                f"iterations is a whole number from 1 to {MOST_ITERATIONS}, got {iterations!r}"
            )
        for name, value in {"rtol": rtol, "atol": atol}.items():
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ConfigurationError(f"{name} is a finite number of at least 0, got {value!r}")
        if unit is not None and not (isinstance(unit, int | float) and 0 < unit < math.inf):
            raise ConfigurationError(f"unit is positive and finite, got {unit!r}")
        self.iterations = iterations
        self.rtol, self.atol, self.unit = rtol, atol, unit

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noise, no energy, and steps that leave the solution."""
        super().check(flow)
        # Looks the energy up, and derives its rate, which not every energy has.
        _ = flow.energy(self._name(flow)).conserved
        if self.scheme.order(flow) < 1:
            raise CompatibilityError(
                f"{self!r} moves a step to the energy that the solution has, which steps of "
                f"{self.scheme!r} leave: project first, as in Restarted(Projected(...))"
            )

    def order(self, flow: FlowLike) -> float:
        """That of the scheme, at most 2."""
        return min(self.scheme.order(flow), 2.0)

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """One more than the scheme takes, for the slope of the energy."""
        return self.scheme.gradient_evaluations(flow) + 1

    def closure_free(self, flow: FlowLike) -> bool:
        """The slope is taken away from the start, and losses besides."""
        return False

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """A step of the scheme, and its projection; unprojected where that is not solved."""
        energy = flow.energy(self._name(flow))
        begin = evaluate(state)
        before, rate = energy.value(state, begin), energy.rate(state, begin)
        ahead = self.scheme.step(flow, state, step_size, evaluate, noise).state
        ahead = replace(ahead, time=state.time + step_size)
        there = evaluate(ahead)
        if self.scheme.order(flow) > 1:
            rate = 0.5 * (rate + energy.rate(ahead, there))
        target = before + step_size * rate
        precision = ROUNDING * torch.finfo(state.position[0].dtype).eps
        excess = energy.value(ahead, there) - target
        size = torch.abs(step_size * rate) + torch.abs(excess)
        tolerance = self.atol + self.rtol * size + precision * torch.abs(before)

        slope = energy.slope(ahead, there)
        unit = step_size if self.unit is None else torch.full_like(step_size, self.unit)
        way = slope.with_position(tuple(lift(unit * unit, s) * s for s in slope.position))
        steepness, share = _product(slope, way), torch.zeros_like(target)
        searching = ~(torch.abs(excess) <= tolerance)
        for _ in range(self.iterations):
            share = torch.where(searching, share - excess / steepness, share)
            end = ahead.plus([(share, way)])
            value = energy.value(end, evaluate.loss(end, searching))
            excess = torch.where(searching, value - target, excess)
            searching = searching & ~(torch.abs(excess) <= tolerance)
        end = ahead.plus([(torch.where(searching, 0.0, share), way)])
        return Proposal(end, solved=~searching)


def _product(one: State, other: State) -> Tensor:
    """The inner product of two tangents, (*batch,), float64."""
    products = one.map(torch.mul, other)
    parts = [one.total(leaves) for leaves in products.variables.values()]
    return sum([*parts[1:], *products.scalars.values()], start=parts[0])
