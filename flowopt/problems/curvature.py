"""Second derivatives of a problem's loss."""

from torch import Tensor

from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.oracle import as_oracle
from flowopt.core.state import Leaves


def gauss_newton(problem: object, position: Leaves | Tensor) -> Tensor:
    """The Gauss–Newton matrix Q = Jᵀ∇²ℓJ of a loss ℓ(f(θ)), JᵀJ for residuals.

    Args:
        problem: Anything with `dim` and `residuals(theta)`, or a `flowopt.problems.network`.
        position: A start (*batch, dim), or leaves of θ, as in `state.position`.

    Returns:
        (*batch, dim, dim), elements in the order of the leaves.

    Raises:
        CompatibilityError: The problem has no residuals.
    """
    some = position if isinstance(position, Tensor) else position[0]
    oracle = as_oracle(problem, some.dtype, some.device)
    leaves = oracle.leaves(position) if isinstance(position, Tensor) else position
    return GaussNewton(oracle, leaves, None).matrix()


def curvature(problem: object, position: Leaves) -> Leaves:
    """Second derivatives ∂²L/∂θᵢ², which sum to the Laplacian of the loss.

    Exact, by one Hessian product per parameter: for problems with few of them.

    Args:
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        position: Leaves of θ, as in `state.position`.

    Returns:
        Leaves like those of θ.
    """
    oracle = as_oracle(problem, position[0].dtype, position[0].device)
    return Hessian(oracle, position, None).diagonal()
