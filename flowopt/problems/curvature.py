"""Second derivatives of a problem's loss."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.interfaces import Oracle
from flowopt.core.oracle import as_oracle
from flowopt.core.state import Leaves
from flowopt.errors import DataError

Position = Leaves | Tensor | Mapping[str, Tensor]


def gauss_newton(problem: object, position: Position) -> Tensor:
    """The Gauss–Newton matrix Q = Jᵀ∇²ℓJ of a loss ℓ(f(θ)), JᵀJ for residuals.

    Args:
        problem: Anything with `dim` and `residuals(theta)`, or a `flowopt.problems.network`.
        position: A start (*batch, dim), parameters by name for a network, or leaves of θ, as in
            `state.position`.

    Returns:
        (*batch, dim, dim), elements in the order of the leaves.

    Raises:
        CompatibilityError: The problem has no residuals.
        DataError: The position is neither, or has the wrong shape.
    """
    oracle, leaves = _opened(problem, position)
    return GaussNewton(oracle, leaves, None).matrix()


def curvature(problem: object, position: Position) -> Leaves:
    """Second derivatives ∂²L/∂θᵢ², which sum to the Laplacian of the loss.

    Exact, by one Hessian product per parameter: for problems with few of them.

    Args:
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        position: A start (*batch, dim), parameters by name for a network, or leaves of θ, as in
            `state.position`.

    Returns:
        Leaves like those of θ.

    Raises:
        DataError: The position is neither, or has the wrong shape.
    """
    oracle, leaves = _opened(problem, position)
    return Hessian(oracle, leaves, None).diagonal()


def _opened(problem: object, position: Position) -> tuple[Oracle, Leaves]:
    """The oracle of a problem, and the leaves of a position."""
    if isinstance(position, Tensor):
        leaves = (position,)
    elif isinstance(position, Mapping):
        leaves = tuple(position.values())
    else:
        leaves = tuple(position) if isinstance(position, Sequence) else ()
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise DataError(
            "a position is a tensor (*batch, dim), parameters by name for a network, or leaves as "
            f"in state.position, got {type(position).__name__}"
        )
    oracle = as_oracle(problem, leaves[0].dtype, leaves[0].device)
    if isinstance(position, Tensor | Mapping):
        return oracle, oracle.leaves(position)
    found, due = [tuple(leaf.shape) for leaf in leaves], list(oracle.shapes)
    batch = found[0][: len(found[0]) - len(due[0])]
    if found != [(*batch, *shape) for shape in due]:
        raise DataError(f"the leaves have shapes {found}, expected (*batch, …) with {due}")
    return oracle, leaves
