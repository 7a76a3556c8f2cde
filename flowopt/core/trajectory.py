"""Status of a trajectory, and what an integration returns."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from flowopt.core.state import State


class Status(IntEnum):
    """How a trajectory stands; `str` is a sentence."""

    RUNNING = 0
    TIME_REACHED = 1
    GRADIENT_SMALL = 2
    STEPS_TAKEN = 3
    STEP_TOO_SMALL = 4
    DIVERGED = 5
    STOPPED = 6
    INTERRUPTED = 7

    def __str__(self) -> str:
        """What happened, in words."""
        return SENTENCES[self]


SENTENCES = {
    Status.RUNNING: "still running",
    Status.TIME_REACHED: "reached the end of the time span",
    Status.GRADIENT_SMALL: "gradient (and momentum) fell below the tolerance",
    Status.STEPS_TAKEN: "took the most steps allowed",
    Status.STEP_TOO_SMALL: "step size fell below what time can resolve",
    Status.DIVERGED: "diverged: loss or gradient is not finite",
    Status.STOPPED: "stopped by the user's condition",
    Status.INTERRUPTED: "interrupted from the keyboard",
}


@dataclass(frozen=True)
class Solution:
    """Result of `integrate`.

    Attributes:
        position: Final θ: (*batch, dim), or the leaves of a network.
        state: Final state, from which another `integrate` continues.
        status: (*batch,), int8, values of `Status`.
        steps: Accepted steps, (*batch,), int64.
        records: Name → (time, *batch, …); NaN after a trajectory's end.
        times: Name → time of each record, (time, *batch), float64; NaN after the end.
        counts: "gradients", "losses", "rejected": (*batch,), int64.
        loss: At the final position, (*batch,).
        engine: Which engine stepped, and why.
    """

    position: Any
    state: State
    status: Tensor
    steps: Tensor
    records: dict[str, Tensor]
    times: dict[str, Tensor]
    counts: dict[str, Tensor]
    loss: Tensor
    engine: str = field(default="eager torch")

    def summary(self) -> str:
        """How many trajectories ended how, one line each."""
        codes, numbers = torch.unique(self.status, return_counts=True)
        pairs = zip(codes.tolist(), numbers.tolist(), strict=True)
        return "\n".join(f"{number} {Status(code)}" for code, number in pairs)
