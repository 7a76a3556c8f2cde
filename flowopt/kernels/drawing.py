"""Minibatches of the steps ahead, as a table that a kernel reads."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.kernels.program import UnfitError

# Steps ahead where nobody knows how many there will be.
LOOKED_AHEAD = 256


def latest(state: Any) -> int:
    """Step number of the trajectories that run: ended ones do not move on."""
    return int(state.step.max()) if state.step.numel() else 0


class Order(NamedTuple):
    """Rows of the data that steps see.

    Attributes:
        rows: Numbers of rows, minibatch after minibatch, (steps·size,), int64.
        first: Step number of the first minibatch, 0-d int64.
        size: Rows of a minibatch, 0-d int64.
    """

    rows: Tensor
    first: Tensor
    size: Tensor


class Draws:
    """Minibatches of a problem.

    Args:
        oracle: The problem.
        seed: Of the run.
        batch: Shape of the ensemble.
    """

    def __init__(self, oracle: Any, seed: int, batch: tuple[int, ...]):
        """See the class."""
        self._oracle, self._seed, self._batch = oracle, seed, tuple(batch)

    def at(self, step: int) -> Tensor | None:
        """The minibatch of a step; None for all rows."""
        return self._oracle.draw(step, self._seed, self._batch)

    def ahead(self, step: int, count: int) -> Order | None:
        """Minibatches of so many steps, the one before and the one after; None for all rows."""
        first = max(step - 1, 0)
        known = self.at(first)
        if known is None:
            return None
        rows = [known, *(self.at(number) for number in range(first + 1, step + count + 1))]
        size = torch.tensor(len(known))
        return Order(torch.cat(rows).to(torch.int64), torch.tensor(first), size)

    def check(self, rejects: bool) -> None:
        """Raises `UnfitError` for minibatches that a kernel can not see.

        Args:
            rejects: Whether the control rejects steps, so that steps and trials differ.
        """
        sample = self.at(0)
        if sample is not None and sample.ndim != 1:
            raise UnfitError("every replica draws minibatches of its own")
        if sample is not None and rejects:
            raise UnfitError(
                "the control rejects steps, and trajectories then see different minibatches"
            )
        if sample is not None and not hasattr(self._oracle, "evaluate_rows"):
            raise UnfitError("the problem draws minibatches")
