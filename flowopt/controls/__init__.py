"""Step controls: how far to step, and whether to accept."""

from flowopt.controls.base import Control
from flowopt.controls.constant import Constant, Schedule
from flowopt.controls.damping import BoldUphill, Damping, Fletcher, HaganMenhaj, Nielsen
from flowopt.controls.elementary import ElementaryControl
from flowopt.controls.error import ErrorControl
from flowopt.controls.expected_slope import ExpectedSlope
from flowopt.controls.gradient_only import GradientOnly
from flowopt.controls.lyapunov import LyapunovControl
from flowopt.controls.solved import Solved

__all__ = [
    "BoldUphill",
    "Constant",
    "Control",
    "Damping",
    "ElementaryControl",
    "ErrorControl",
    "ExpectedSlope",
    "Fletcher",
    "GradientOnly",
    "HaganMenhaj",
    "LyapunovControl",
    "Nielsen",
    "Schedule",
    "Solved",
]
