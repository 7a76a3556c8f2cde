"""Linearly implicit Euler: one linear system per step instead of a nonlinear one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.curvature.linear import conjugate_gradients, identity, solve, solve_positive
from flowopt.core.evaluation import Evaluation, Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal
from flowopt.core.state import Leaves, State, as_row, from_rows, lift
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.schemes.drift import DriftScheme

# Beyond, a dense matrix per trajectory is too much: that of the Hessian, which costs a product per
# column, and that of Gauss and Newton.
MOST_COLUMNS, MOST_NUMBERS = 512, 4096
# Largest 2|acceleration|/|velocity|.
MOST_BEND = 0.75


class LinearlyImplicitEuler(DriftScheme):
    """Linearly implicit (Rosenbrock) Euler, z + h(I − hJ)⁻¹·drift(z) with J = ∂drift/∂z: order 1.

    Stable at any step size where the flow contracts. J holds the Hessian of the loss, through
    products with it, counted apart in `solution.counts["products"]`. With the Gauss–Newton matrix
    Q in its place, a step of the gradient flow is that of Levenberg and Marquardt,
    θ − (Q + μI)⁻¹∇L with damping μ = 1/h.

    Args:
        iterations: None for a dense system per trajectory, which costs one product per parameter,
            and for small problems only. A number for so many iterations of conjugate gradients,
            without a matrix: for flows of θ alone whose J is symmetric, such as the gradient flow.
            A trajectory stops iterating where the system is solved to rounding, or where it meets
            negative curvature of I − hJ.
        gauss_newton: Whether Q stands for the Hessian, for problems with residuals and networks.
            It needs no second derivatives, and a step of the gradient flow never climbs at first.
            It costs as many products with the Jacobian of the residuals as there are residuals or
            parameters, or two per iteration.
        acceleration: Whether to add −½(Q + μI)⁻¹Jᵀr″, with r″ the second derivative of the
            residuals along the step: geodesic acceleration, which follows curved valleys. Where it
            would be more than ⅜ of the step it is left out.

    Raises:
        ConfigurationError: `iterations` is no positive whole number, or acceleration is asked for
            without Gauss–Newton.

    Reference:
        Hairer & Wanner 1996, Solving Ordinary Differential Equations II, section IV.7; Steihaug
        1983, SIAM J. Numer. Anal. 20(3), 626, for negative curvature; Marquardt 1963, J. SIAM
        11(2), 431; Transtrum & Sethna 2012, arXiv:1201.5885, for acceleration.
    """

    linearly_implicit = True

    def __init__(
        self,
        *,
        iterations: int | None = None,
        gauss_newton: bool = False,
        acceleration: bool = False,
    ):
        """See the class."""
        whole = isinstance(iterations, int) and not isinstance(iterations, bool)
        if iterations is not None and not (whole and iterations > 0):
            raise ConfigurationError(f"iterations is a positive whole number, got {iterations!r}")
        if acceleration and not gauss_newton:
            raise ConfigurationError("acceleration=True needs gauss_newton=True")
        self.iterations = iterations
        self.gauss_newton, self.acceleration = gauss_newton, acceleration

    def __repr__(self) -> str:
        """As it is written."""
        settings = {
            "iterations": self.iterations,
            "gauss_newton": self.gauss_newton,
            "acceleration": self.acceleration,
        }
        inside = [f"{name}={value}" for name, value in settings.items() if value]
        return f"LinearlyImplicitEuler({', '.join(inside)})"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noise, and for J that is infinite or unfit."""
        super().check(flow)
        if flow.steep_at_start:
            raise CompatibilityError(
                f"the derivative of the drift of flow {flow.name!r} is infinite at the start, and "
                f"{self!r} needs it: use a splitting word over its letters {list(flow.letters)}"
            )
        if flow.damping is not None:
            raise CompatibilityError(
                f"{self!r} needs the derivative of the drift, and that of flow {flow.name!r} holds "
                "solutions of systems: use Euler(), or this scheme with flows.gradient_flow()"
            )
        if self.iterations is not None and not flow.symmetric:
            raise CompatibilityError(
                f"conjugate gradients need a symmetric ∂drift/∂θ, as of the gradient flow, unlike "
                f"that of flow {flow.name!r}: use LinearlyImplicitEuler() on a small problem"
            )
        if self.acceleration and not flow.symmetric:
            raise CompatibilityError(
                f"acceleration=True is for flows of theta alone, such as the gradient flow, unlike "
                f"flow {flow.name!r}"
            )

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """The gradient at the start, and once more with what products with the Hessian need."""
        return 1 if self.gauss_newton else 2

    def closure_free(self, flow: FlowLike) -> bool:
        """Products with the Hessian need the loss as a function."""
        return False

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """One step along the solution of the linear system."""
        evaluation = evaluate(state)
        squares = evaluate.gauss_newton(state) if self.gauss_newton else None
        curvature = evaluate.hessian(state) if squares is None else squares
        point = _Point(flow, state, step_size, evaluation, curvature)
        solved = point.iterated(self.iterations) if self.iterations else point.dense()
        slope = solved(flow.drift(state, evaluation))
        if squares is None or not self.acceleration:
            return Proposal(state.plus([(step_size, slope)]))
        turn = solved(point.drawn(squares.bend(_times(step_size, slope.position))))
        size, speed = (s.squared_norm(s.position) for s in (turn, slope))
        slight = 4 * size <= MOST_BEND**2 * speed
        weight = torch.where(slight, step_size, 0.0)
        after = state.plus([(step_size, slope), (weight, turn)])
        return Proposal(after, turn.with_position(_times(weight, turn.position)))


class _Point(NamedTuple):
    """The system (I − hJ)x = b at a state."""

    flow: FlowLike
    state: State
    step_size: Tensor
    evaluation: Evaluation
    curvature: Hessian | GaussNewton

    def drawn(self, bend: Leaves) -> State:
        """Half of what a change of the gradient changes in the drift."""
        half = tuple(0.5 * leaf for leaf in bend)
        return self.along(self.state.map(torch.zeros_like), half)

    def along(self, direction: State, product: Leaves) -> State:
        """J times a direction, of which the product with the curvature is given."""
        return self.flow.drift_along(self.state, self.evaluation, direction, product)

    def dense(self) -> Callable[[State], State]:
        """Solves by a matrix for each trajectory."""
        numbers = _row(self.state)
        self._check_size(numbers.shape[-1])
        jacobian = self._symmetric() if self.flow.symmetric else self._by_columns(numbers)
        matrix = identity(numbers.shape[-1], numbers) - lift(self.step_size, jacobian) * jacobian
        positive = self.flow.symmetric and isinstance(self.curvature, GaussNewton)
        method = solve_positive if positive else solve
        return lambda right: _state(method(matrix, _row(right)), right)

    def _check_size(self, count: int) -> None:
        most = MOST_NUMBERS if isinstance(self.curvature, GaussNewton) else MOST_COLUMNS
        if count > most:
            raise CompatibilityError(
                f"a dense system of {count} numbers per trajectory, at most {most}: use "
                "LinearlyImplicitEuler(iterations=20) on a flow of theta alone"
            )

    def _symmetric(self) -> Tensor:
        """J of a drift −c∇L + f(θ): −c times the curvature, and f′ on the diagonal."""
        still = self.state.map(torch.zeros_like)
        ones, none = self.state.map(torch.ones_like), still.position
        factor, own = _row(self.along(still, ones.position)), _row(self.along(ones, none))
        diagonal = identity(own.shape[-1], own) * own[..., None]
        return factor[..., None] * self.curvature.matrix() + diagonal

    def _by_columns(self, numbers: Tensor) -> Tensor:
        """J of any drift, by a direction for every number."""
        units = identity(numbers.shape[-1], numbers)
        moved = iter(self.curvature.matrix().unbind(-1))
        still = tuple(torch.zeros_like(leaf) for leaf in self.state.position)
        columns, dimensions = [], len(self.state.batch)
        for unit, in_position in zip(units, self._in_position(), strict=True):
            product = from_rows(next(moved), still, dimensions) if in_position else still
            direction = _state(unit.expand_as(numbers), self.state)
            columns.append(_row(self.along(direction, product)))
        return torch.stack(columns, -1)

    def _in_position(self) -> list[bool]:
        """Whether each number of the state is one of θ."""
        places = [
            name == "theta"
            for name, leaves in self.state.variables.items()
            for leaf in leaves
            for _ in range(math.prod(leaf.shape[len(self.state.batch) :]))
        ]
        return places + [False] * len(self.state.scalars)

    def iterated(self, iterations: int) -> Callable[[State], State]:
        """Solves by conjugate gradients, for θ alone."""

        def system(position: Leaves) -> Leaves:
            direction = self.state.with_position(position)
            slope = self.along(direction, self.curvature.product(position))
            return direction.plus([(-self.step_size, slope)]).position

        dimensions = len(self.state.batch)
        return lambda right: right.with_position(
            conjugate_gradients(system, right.position, iterations, dimensions)
        )


def _times(factor: Tensor, leaves: Leaves) -> Leaves:
    return tuple(lift(factor, leaf) * leaf for leaf in leaves)


def _row(state: State) -> Tensor:
    """All numbers of each trajectory, (*batch, numbers)."""
    batch = len(state.batch)
    parts = [as_row(leaf, batch) for leaves in state.variables.values() for leaf in leaves]
    parts += [value.to(parts[0].dtype)[..., None] for value in state.scalars.values()]
    return torch.cat(parts, -1)


def _state(row: Tensor, like: State) -> State:
    """The inverse of `_row`."""
    sizes = [
        math.prod(leaf.shape[len(like.batch) :])
        for leaves in like.variables.values()
        for leaf in leaves
    ]
    pieces = iter(row.split([*sizes, *(1 for _ in like.scalars)], -1))
    variables = {
        name: tuple(next(pieces).reshape(leaf.shape) for leaf in leaves)
        for name, leaves in like.variables.items()
    }
    scalars = {name: next(pieces)[..., 0].to(torch.float64) for name in like.scalars}
    return like.updated(variables, scalars)
