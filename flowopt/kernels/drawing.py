"""Minibatches of the steps ahead, as a table that a kernel reads."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.core.oracle import drawn
from flowopt.kernels.program import UnfitError

# Steps ahead where nobody knows how many there will be.
LOOKED_AHEAD = 256
FAR_AHEAD = 4096
# Lanes of the widest block, which may reach beyond the last replica.
WIDEST_BLOCK = 64
# Numbers of rows that are drawn at once, where every replica draws its own.
MOST_ROWS = 1 << 22


def reached(step: Tensor) -> tuple[int, int]:
    """The smallest and the largest of step numbers."""
    return (int(step.min()), int(step.max())) if step.numel() else (0, 0)


class Order(NamedTuple):
    """Rows of the data that steps see.

    Attributes:
        rows: Numbers of rows, minibatch after minibatch, int64: (steps·size,); where every replica
            has its own, those of all replicas side by side, and some more at the end.
        first: Step number of the first minibatch, 0-d int64.
        size: Rows of a minibatch, 0-d int64.
        stride: From a trajectory's row to its next, 0-d int64; None where all that run are at the
            same step and share rows.
        aside: From a trajectory's rows to those of its neighbour, 0-d int64.
    """

    rows: Tensor
    first: Tensor
    size: Tensor
    stride: Tensor | None = None
    aside: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """What a kernel reads."""
        return [tensor for tensor in self if tensor is not None]


class Draws:
    """Minibatches of a problem.

    Args:
        stepper: With the problem; where its control rejects steps, trajectories part ways.
        seed: Of the run.
        batch: Shape of the ensemble.
        chosen: Replicas of it, where not all are looked at.
    """

    def __init__(
        self, stepper: Any, seed: int, batch: tuple[int, ...], chosen: Tensor | None = None
    ):
        """See the class."""
        self._stepper, self._seed, self._batch = stepper, seed, tuple(batch)
        self._chosen = chosen

    def of(self, chosen: Tensor) -> "Draws":
        """What some of the replicas see."""
        return Draws(self._stepper, self._seed, self._batch, chosen)

    def at(self, step: int) -> Tensor | None:
        """The minibatch of a step, (size,) or (replicas, size); None for all rows."""
        sample = self._stepper.oracle.draw(step, self._seed, self._batch)
        if sample is None or sample.ndim == 1 or self._chosen is None:
            return sample
        return sample[self._chosen]

    def of_steps(self, step: Tensor) -> Tensor | None:
        """The minibatches of some trajectories' steps, (*batch,)."""
        if self._stepper.sampled:
            return drawn(self.at, step)
        _, latest = reached(step)
        return self.at(latest)

    def ahead(self, step: Tensor, count: int) -> Order | None:
        """Minibatches of so many steps, the one before and the one after; None for all rows.

        Args:
            step: Where each trajectory is; without rejections, those that run are at the last one.
            count: Of each trajectory.
        """
        known = self.at(0)
        if known is None:
            return None
        lowest, latest = reached(step)
        first = max((lowest if self._stepper.sampled else latest) - 1, 0)
        drawn_for = map(self.at, range(first, latest + count + 1))
        rows = [sample for sample in drawn_for if sample is not None]
        together = torch.stack(rows).to(torch.int64)
        start, size = torch.tensor(first), torch.tensor(known.shape[-1])
        if known.ndim == 1:
            apart = (torch.tensor(1), torch.tensor(0)) if self._stepper.sampled else ()
            return Order(together.reshape(-1), start, size, *apart)
        side_by_side = together.transpose(1, 2).reshape(-1)
        more = side_by_side.new_zeros(WIDEST_BLOCK)
        apart = torch.tensor(len(known)), torch.tensor(1)
        return Order(torch.cat([side_by_side, more]), start, size, *apart)

    def most_ahead(self, step: int) -> int:
        """For how many steps to draw at most."""
        known = self.at(step)
        if known is None or known.ndim == 1:
            return FAR_AHEAD
        return max(1, MOST_ROWS // known.numel())

    @property
    def waits(self) -> bool:
        """Whether trajectories wait for the hindmost, as minibatches of all are too many."""
        sample = self.at(0)
        return self._stepper.sampled and sample is not None and sample.ndim > 1

    def check(self) -> None:
        """Raises `UnfitError` for minibatches that a kernel can not see."""
        sample = self.at(0)
        if sample is None:
            return
        if not hasattr(self._stepper.oracle, "evaluate_rows"):
            raise UnfitError("the problem draws minibatches")
