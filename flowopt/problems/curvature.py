"""Second derivatives of a problem's loss."""

from flowopt.core.hessian import Hessian
from flowopt.core.oracle import as_oracle
from flowopt.core.state import Leaves


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
