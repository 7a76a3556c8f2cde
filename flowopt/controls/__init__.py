"""Step controls: how far to step, and whether to accept."""

from flowopt.controls.constant import Constant, Schedule
from flowopt.controls.elementary import ElementaryControl
from flowopt.controls.error import ErrorControl
from flowopt.controls.lyapunov import LyapunovControl

__all__ = ["Constant", "ElementaryControl", "ErrorControl", "LyapunovControl", "Schedule"]
