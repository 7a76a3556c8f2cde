"""A problem whose loss is a sum or a mean over rows of data, traced for one row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import Leaves
from flowopt.kernels.program import UnfitError
from flowopt.kernels.tracing.guard import guarded
from flowopt.kernels.tracing.trace import trace
from flowopt.kernels.tracing.traced import Rows

# Rows on which it is seen whether the loss is a mean or a sum.
TRIED = 3
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}


@torch.library.custom_op("flowopt::over_rows", mutates_args=())
def over_rows(leaves: Sequence[Tensor], number: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """Loss and gradient over all rows, or over those of a minibatch; only to be traced."""
    raise RuntimeError("this operation is traced, never run")


@over_rows.register_fake
def _shapes(leaves: Sequence[Tensor], number: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    loss = leaves[0].new_empty(leaves[0].shape[:1], dtype=dtype)
    return [loss, *(torch.empty_like(leaf) for leaf in leaves)]


class RowOracle:
    """Stands for a problem while a step is traced: the whole evaluation is one operation.

    Attributes:
        dtype: Of the loss.
    """

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def evaluate(self, position: Leaves, sample: Tensor | None) -> Evaluation:
        """Loss and gradient; the sample is the number of a minibatch."""
        loss, *gradient = over_rows(list(position), sample, self.dtype)
        return Evaluation(loss, tuple(gradient))

    def losses(self, position: Leaves, sample: Tensor | None) -> Tensor:
        """The loss alone, for which the same is computed."""
        return self.evaluate(position, sample).loss


def trace_row(oracle: Any, position: Leaves, apart: bool) -> tuple[Rows, RowOracle]:
    """The evaluation of one row, and what stands for the oracle in the trace of a step.

    Args:
        oracle: With `tables` and `evaluate_rows`.
        position: Leaves of one trajectory, (1, *shape).
        apart: Whether trajectories see different rows at a time.

    Raises:
        UnfitError: The loss is no sum or mean over rows, or has no scalar form.
    """
    tables = oracle.tables
    count = len(position)

    def of_row(*tensors: Tensor) -> list[Tensor]:
        evaluation = guarded(oracle.evaluate_rows(tensors[:count], tensors[count:]))
        return [evaluation.loss, *evaluation.gradient]

    dtype, mean = _joined(oracle, position)
    samples = [table[None, :1] if apart else table[:1] for table in tables]
    lanes = [True] * count + [apart] * len(tables)
    return Rows(trace(of_row, [*position, *samples], lanes), tables, mean, apart), RowOracle(dtype)


def _joined(oracle: Any, position: Leaves) -> tuple[torch.dtype, bool]:
    """Type of the loss, and whether it is the mean over rows, not the sum."""
    few = [table[:TRIED] for table in oracle.tables]
    try:
        whole = oracle.evaluate_rows(position, tuple(few)).loss
        single = [
            oracle.evaluate_rows(position, tuple(table[i : i + 1] for table in few)).loss
            for i in range(len(few[0]))
        ]
    # The user's module and loss may raise anything when they are given one row.
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UnfitError(
            f"loss and module do not take one row: {type(error).__name__}: {first}"
        ) from error
    tolerance = TOLERANCES.get(whole.dtype, 0.0)
    terms = torch.stack(single)
    for mean, joined in ((True, terms.mean(0)), (False, terms.sum(0))):
        if torch.allclose(joined, whole, rtol=tolerance, atol=0.0, equal_nan=True):
            return whole.dtype, mean
    raise UnfitError("the loss is no sum or mean over rows of the data")
