"""Linear systems, one for each trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.core.state import Leaves, lift, sum_leaves

# Up to this size a system is solved by operations on single numbers, which a kernel can print.
MOST_UNROLLED = 16
# Of the first residual's square, below which a system is solved to rounding.
SMALLEST = 1e-30


def identity(size: int, like: Tensor) -> Tensor:
    """The unit matrix in the type of a tensor, made of operations that a kernel can print."""
    numbers = torch.arange(size, device=like.device)
    return (numbers[:, None] == numbers).to(like.dtype)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution x of Ax = b, by elimination with partial pivoting.

    Args:
        matrix: A, (*batch, size, size).
        right: b, (*batch, size).

    Returns:
        (*batch, size), not finite where A is singular.
    """
    size = right.shape[-1]
    if size > MOST_UNROLLED:
        return torch.linalg.solve_ex(matrix, right)[0]
    pairs = zip(matrix.unbind(-2), right.unbind(-1), strict=True)
    rows = [[*row.unbind(-1), value] for row, value in pairs]
    for place in range(size):
        for other in range(place + 1, size):
            larger = torch.abs(rows[other][place]) > torch.abs(rows[place][place])
            both = list(zip(rows[place], rows[other], strict=True))
            rows[place] = [torch.where(larger, b, a) for a, b in both]
            rows[other] = [torch.where(larger, a, b) for a, b in both]
        for other in range(place + 1, size):
            factor = rows[other][place] / rows[place][place]
            for column in range(place + 1, size + 1):
                rows[other][column] = rows[other][column] - factor * rows[place][column]
    upper = [row[:-1] for row in rows]
    return torch.stack(_substituted(upper, [row[-1] for row in rows]), -1)


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution x of Ax = b for a symmetric positive definite matrix A, as LDLᵀ.

    Args:
        matrix: A, (*batch, size, size), of which the lower triangle is read.
        right: b, (*batch, size).

    Returns:
        (*batch, size), not finite where a large A is not positive definite, or a small one not
        invertible in this order.

    Reference:
        Golub & Van Loan 2013, Matrix Computations, section 4.1.
    """
    size = right.shape[-1]
    if size > MOST_UNROLLED:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve(right[..., None], factor)[..., 0]
        return torch.where((failed == 0)[..., None], solution, torch.nan)
    rows = [list(row.unbind(-1)) for row in matrix.unbind(-2)]
    values, pivots = list(right.unbind(-1)), []
    # Below the diagonal stands L, above it Lᵀ: row by row from those above.
    for i in range(size):
        for j in range(i):
            known = rows[i][j]
            for k in range(j):
                known = known - rows[i][k] * rows[k][j]
            rows[j][i] = known
            rows[i][j] = known / pivots[j]
        pivot = rows[i][i]
        for k in range(i):
            pivot = pivot - rows[i][k] * rows[k][i]
            values[i] = values[i] - rows[i][k] * values[k]
        pivots.append(pivot)
        rows[i][i] = pivot
    return torch.stack(_substituted(rows, values), -1)


def conjugate_gradients(
    product: Callable[[Leaves], Leaves], right: Leaves, iterations: int, batch_dimensions: int
) -> Leaves:
    """Approximate solution of Ax = b by conjugate gradients from zero.

    Each trajectory goes on by itself, until its system is solved to rounding or it meets a
    direction along which A is not positive; where that is the first, the solution is b.

    Args:
        product: x → Ax, leaves (*batch, *shape).
        right: b.
        iterations: At most so many.
        batch_dimensions: Length of the batch shape.

    Reference:
        Steihaug 1983, SIAM J. Numer. Anal. 20(3), 626.
    """

    def dot(a: Leaves, b: Leaves) -> Tensor:
        return sum_leaves((x * y for x, y in zip(a, b, strict=True)), batch_dimensions)

    def along(start: Leaves, factor: Tensor, direction: Leaves) -> Leaves:
        return tuple(x + lift(factor, x) * d for x, d in zip(start, direction, strict=True))

    residual = direction = right
    solution = tuple(torch.zeros_like(leaf) for leaf in residual)
    size = first = dot(residual, residual)
    active = torch.ones_like(size, dtype=torch.bool)
    for iteration in range(iterations):
        image = product(direction)
        curved = dot(direction, image)
        active = active & (curved > 0) & (size > SMALLEST * first)
        length = torch.where(active, size / torch.where(active, curved, 1.0), 0.0)
        if iteration == 0:
            length = torch.where(active, length, 1.0)
        solution = along(solution, length, direction)
        residual = along(residual, -length, image)
        before, size = size, torch.where(active, dot(residual, residual), size)
        ratio = torch.where(active, size / torch.where(active, before, 1.0), 0.0)
        direction = along(residual, ratio, direction)
    return solution


def _substituted(upper: list[list[Tensor]], right: list[Tensor]) -> list[Tensor]:
    """The solution of a system with an upper triangular matrix."""
    solution = list(right)
    for i in reversed(range(len(right))):
        for k in range(i + 1, len(right)):
            solution[i] = solution[i] - upper[i][k] * solution[k]
        solution[i] = solution[i] / upper[i][i]
    return solution
