"""Minibatches of the steps ahead, as a table that a kernel reads."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.kernels.program import UnfitError

# Steps ahead where nobody knows how many there will be.
LOOKED_AHEAD = 256
FAR_AHEAD = 4096
# Lanes of the widest block, which may reach beyond the last replica.
WIDEST_BLOCK = 64
# Numbers of rows that are drawn at once, where every replica draws its own.
MOST_ROWS = 1 << 22


def latest(state: Any) -> int:
    """Step number of the trajectories that run: ended ones do not move on."""
    return int(state.step.max()) if state.step.numel() else 0


class Order(NamedTuple):
    """Rows of the data that steps see.

    Attributes:
        rows: Numbers of rows, minibatch after minibatch, int64: (steps·size,); where every replica
            has its own, those of all replicas side by side, and some more at the end.
        first: Step number of the first minibatch, 0-d int64.
        size: Rows of a minibatch, 0-d int64.
        stride: From a replica's row to its next, 0-d int64; None where replicas share rows.
    """

    rows: Tensor
    first: Tensor
    size: Tensor
    stride: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """What a kernel reads."""
        return [tensor for tensor in self if tensor is not None]


class Draws:
    """Minibatches of a problem.

    Args:
        oracle: The problem.
        seed: Of the run.
        batch: Shape of the ensemble.
        chosen: Replicas of it, where not all are looked at.
    """

    def __init__(
        self, oracle: Any, seed: int, batch: tuple[int, ...], chosen: Tensor | None = None
    ):
        """See the class."""
        self._oracle, self._seed, self._batch = oracle, seed, tuple(batch)
        self._chosen = chosen

    def of(self, chosen: Tensor) -> "Draws":
        """What some of the replicas see."""
        return Draws(self._oracle, self._seed, self._batch, chosen)

    def at(self, step: int) -> Tensor | None:
        """The minibatch of a step, (size,) or (replicas, size); None for all rows."""
        sample = self._oracle.draw(step, self._seed, self._batch)
        if sample is None or sample.ndim == 1 or self._chosen is None:
            return sample
        return sample[self._chosen]

    def ahead(self, step: int, count: int) -> Order | None:
        """Minibatches of so many steps, the one before and the one after; None for all rows."""
        first = max(step - 1, 0)
        known = self.at(first)
        if known is None:
            return None
        rows = [known, *(self.at(number) for number in range(first + 1, step + count + 1))]
        drawn = torch.stack(rows).to(torch.int64)
        start, size = torch.tensor(first), torch.tensor(known.shape[-1])
        if known.ndim == 1:
            return Order(drawn.reshape(-1), start, size)
        side_by_side = drawn.transpose(1, 2).reshape(-1)
        more = side_by_side.new_zeros(WIDEST_BLOCK)
        return Order(torch.cat([side_by_side, more]), start, size, torch.tensor(len(known)))

    def most_ahead(self, step: int) -> int:
        """For how many steps to draw at most."""
        known = self.at(step)
        if known is None or known.ndim == 1:
            return FAR_AHEAD
        return max(1, MOST_ROWS // known.numel())

    def check(self, rejects: bool) -> None:
        """Raises `UnfitError` for minibatches that a kernel can not see.

        Args:
            rejects: Whether the control rejects steps, so that steps and trials differ.
        """
        sample = self.at(0)
        if sample is not None and rejects:
            raise UnfitError(
                "the control rejects steps, and trajectories then see different minibatches"
            )
        if sample is not None and not hasattr(self._oracle, "evaluate_rows"):
            raise UnfitError("the problem draws minibatches")
