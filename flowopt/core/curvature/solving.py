"""Solutions of systems with the Gauss–Newton matrix, for flows whose equations hold them."""

from dataclasses import replace

from torch import Tensor

from flowopt.core.curvature.gauss_newton import Composition, GaussNewton
from flowopt.core.curvature.linear import identity, solve_positive
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.state import Leaves, as_rows, from_rows, lift


class SolvingOracle:
    """A problem that says (Q + μI)⁻¹∇L too, by a dense system per trajectory.

    Args:
        oracle: The problem, with residuals or outputs.
        damping: μ, 0-d or (*batch,).
    """

    def __init__(self, oracle: Oracle, damping: Tensor):
        """See the class."""
        self._oracle, self._damping = oracle, damping
        self.products = 0

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss, gradient and solution."""
        evaluation = self._oracle.evaluate(position, sample)
        curvature = GaussNewton(self._oracle, position, sample, self._count)
        matrix, dimensions = curvature.matrix(), len(curvature.batch)
        damping = lift(self._damping.expand(curvature.batch), matrix)
        damped = matrix + damping * identity(matrix.shape[-1], matrix)
        solution = solve_positive(damped, as_rows(evaluation.gradient, dimensions))
        return replace(evaluation, damped=from_rows(solution, position, dimensions))

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """As the problem's."""
        return self._oracle.losses(position, sample)

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """As the problem's."""
        return self._oracle.composed(position, sample)

    def _count(self, number: int) -> None:
        self.products += number


def solving(oracle: Oracle, damping: Tensor | None) -> Oracle:
    """The problem as a flow asks it: with solutions, where its equations hold them."""
    # A step asks of an oracle no more than this one answers.
    return oracle if damping is None else SolvingOracle(oracle, damping)  # pyright: ignore[reportReturnType]
