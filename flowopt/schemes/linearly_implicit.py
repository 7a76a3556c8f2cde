"""Linearly implicit Euler: one linear system per step instead of a nonlinear one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal
from flowopt.core.state import Leaves, State, lift, sum_elements
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.schemes.drift import check_drift_scheme

# Beyond, a dense matrix per trajectory is too much.
MOST_NUMBERS = 512
SMALLEST = 1e-30


class LinearlyImplicitEuler:
    """Linearly implicit (Rosenbrock) Euler, z + h(I − hJ)⁻¹·drift(z) with J = ∂drift/∂z: order 1.

    Stable at any step size where the flow contracts. J holds the Hessian of the loss, through
    products with it, counted apart in `solution.counts["products"]`.

    Args:
        iterations: None for a dense system per trajectory, which costs one product per parameter,
            and for small problems only. A number for so many iterations of conjugate gradients,
            one product each, without a matrix: for flows of θ alone whose J is symmetric, such as
            the gradient flow. A trajectory stops iterating where the system is solved to rounding,
            or where it meets negative curvature of I − hJ.

    Raises:
        ConfigurationError: `iterations` is no positive whole number.

    Reference:
        Hairer & Wanner 1996, Solving Ordinary Differential Equations II, section IV.7; Steihaug
        1983, SIAM J. Numer. Anal. 20(3), 626, for negative curvature.
    """

    elementwise = False
    error_order = 0
    interpolant_order = 0
    regular_start = True

    def __init__(self, *, iterations: int | None = None):
        """See the class."""
        whole = isinstance(iterations, int) and not isinstance(iterations, bool)
        if iterations is not None and not (whole and iterations > 0):
            raise ConfigurationError(f"iterations is a positive whole number, got {iterations!r}")
        self.iterations = iterations

    def __repr__(self) -> str:
        """As it is written."""
        inside = "" if self.iterations is None else f"iterations={self.iterations}"
        return f"LinearlyImplicitEuler({inside})"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noise, and for J that is infinite or unfit."""
        check_drift_scheme(self, flow)
        if flow.steep_at_start:
            raise CompatibilityError(
                f"the derivative of the drift of flow {flow.name!r} is infinite at the start, and "
                f"{self!r} needs it: use a splitting word over its letters {list(flow.letters)}"
            )
        if self.iterations is not None and not flow.symmetric:
            raise CompatibilityError(
                f"conjugate gradients need a symmetric ∂drift/∂θ, as of the gradient flow, unlike "
                f"that of flow {flow.name!r}: use LinearlyImplicitEuler() on a small problem"
            )

    def order(self, flow: FlowLike) -> float:
        """1, whatever the flow."""
        return 1.0

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """The gradient at the start, and once more with what products with the Hessian need."""
        return 2

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """The gradients are those at the start."""
        return False

    def closure_free(self, flow: FlowLike) -> bool:
        """Products with the Hessian need the loss as a function."""
        return False

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """One step along the solution of the linear system."""
        evaluation, hessian = evaluate(state), evaluate.hessian(state)
        drift = flow.drift(state, evaluation)

        def system(direction: State, moves_position: bool = True) -> State:
            """The product with I − hJ."""
            product = hessian.product(direction.position) if moves_position else direction.position
            slope = flow.drift_along(state, evaluation, direction, product)
            return direction.plus([(-step_size, slope)])

        if self.iterations is None:
            slope = _solved(system, drift)
        else:
            slope = drift.with_position(_iterated(system, drift, self.iterations))
        return Proposal(state.plus([(step_size, slope)]))


def _solved(system: Callable[..., State], right: State) -> State:
    """Gaussian elimination with the matrix of a system, one for each trajectory."""
    numbers = _row(right)
    count = numbers.shape[-1]
    if count > MOST_NUMBERS:
        raise CompatibilityError(
            f"a dense system of {count} numbers per trajectory, at most {MOST_NUMBERS}: use "
            "LinearlyImplicitEuler(iterations=20) on a flow of theta alone"
        )
    units = torch.eye(count, dtype=numbers.dtype, device=numbers.device)
    in_position = [
        name == "theta"
        for name, leaves in right.variables.items()
        for leaf in leaves
        for _ in range(math.prod(leaf.shape[len(right.batch) :]))
    ]
    in_position += [False] * len(right.scalars)
    columns = [
        _row(system(_state(unit.expand_as(numbers), right), moves))
        for unit, moves in zip(units, in_position, strict=True)
    ]
    # A singular system gives numbers that are not finite, and the trajectory its status.
    solution, _ = torch.linalg.solve_ex(torch.stack(columns, -1), numbers)
    return _state(solution, right)


def _row(state: State) -> Tensor:
    """All numbers of each trajectory, (*batch, numbers)."""
    batch = state.batch
    parts = [leaf.reshape(*batch, -1) for leaves in state.variables.values() for leaf in leaves]
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


def _iterated(system: Callable[[State], State], right: State, iterations: int) -> Leaves:
    """Conjugate gradients for θ alone, from zero, each trajectory by itself."""
    batch_dimensions = len(right.batch)

    def dot(a: Leaves, b: Leaves) -> Tensor:
        pairs = zip(a, b, strict=True)
        return sum(sum_elements(x * y, batch_dimensions) for x, y in pairs)

    def along(start: Leaves, factor: Tensor, direction: Leaves) -> Leaves:
        return tuple(x + lift(factor, x) * d for x, d in zip(start, direction, strict=True))

    residual = direction = right.position
    solution = tuple(torch.zeros_like(leaf) for leaf in residual)
    size = first = dot(residual, residual)
    active = torch.ones_like(size, dtype=torch.bool)
    for iteration in range(iterations):
        product = system(right.with_position(direction)).position
        curved = dot(direction, product)
        active = active & (curved > 0) & (size > SMALLEST * first)
        # The first direction is the drift: without curvature the step is that of explicit Euler.
        length = torch.where(active, size / torch.where(active, curved, 1.0), 0.0)
        if iteration == 0:
            length = torch.where(active, length, 1.0)
        solution = along(solution, length, direction)
        residual = along(residual, -length, product)
        before, size = size, torch.where(active, dot(residual, residual), size)
        ratio = torch.where(active, size / torch.where(active, before, 1.0), 0.0)
        direction = along(residual, ratio, direction)
    return solution
