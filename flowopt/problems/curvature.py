"""Second derivatives of a problem's loss."""

from collections.abc import Sequence

from torch import Tensor

from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.interfaces import Oracle
from flowopt.core.oracle import as_oracle
from flowopt.core.state import Leaves
from flowopt.errors import DataError


def gauss_newton(problem: object, position: Leaves | Tensor) -> Tensor:
    """The Gauss–Newton matrix Q = Jᵀ∇²ℓJ of a loss ℓ(f(θ)), JᵀJ for residuals.

    Args:
        problem: Anything with `dim` and `residuals(theta)`, or a `flowopt.problems.network`.
        position: A start (*batch, dim), or leaves of θ, as in `state.position`.

    Returns:
        (*batch, dim, dim), elements in the order of the leaves.

    Raises:
        CompatibilityError: The problem has no residuals.
        DataError: The position is neither, or has the wrong shape.
    """
    oracle, leaves = _opened(problem, position)
    return GaussNewton(oracle, leaves, None).matrix()


def curvature(problem: object, position: Leaves | Tensor) -> Leaves:
    """Second derivatives ∂²L/∂θᵢ², which sum to the Laplacian of the loss.

    Exact, by one Hessian product per parameter: for problems with few of them.

    Args:
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        position: A start (*batch, dim), or leaves of θ, as in `state.position`.

    Returns:
        Leaves like those of θ.

    Raises:
        DataError: The position is neither, or has the wrong shape.
    """
    oracle, leaves = _opened(problem, position)
    return Hessian(oracle, leaves, None).diagonal()


def _opened(problem: object, position: Leaves | Tensor) -> tuple[Oracle, Leaves]:
    """The oracle of a problem, and the leaves of a position."""
    some = [position] if isinstance(position, Tensor) else position
    if not isinstance(some, Sequence) or not all(isinstance(leaf, Tensor) for leaf in some):
        raise DataError(
            f"a position is a tensor (*batch, dim), or leaves as in state.position, got "
            f"{position!r}"
        )
    oracle = as_oracle(problem, some[0].dtype, some[0].device)
    return oracle, oracle.leaves(position) if isinstance(position, Tensor) else position
