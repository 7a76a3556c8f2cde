"""Step controls: how far to step, and whether to accept."""

from flowopt.controls.constant import Constant, Schedule

__all__ = ["Constant", "Schedule"]
