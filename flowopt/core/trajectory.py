"""How a trajectory stands."""

from enum import IntEnum


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
    Status.DIVERGED: (
        "diverged: loss, gradient or step size is not finite, or the step has no solution"
    ),
    Status.STOPPED: "stopped by the user's condition",
    Status.INTERRUPTED: "interrupted from the keyboard",
}
