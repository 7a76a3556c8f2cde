"""The interfaces through which flows, schemes, controls, problems and noise meet."""

from flowopt.core.interfaces.draws import Increment, Key, Noise, Wiener
from flowopt.core.interfaces.flow import Evaluate, FlowLike, LetterMove
from flowopt.core.interfaces.problem import Energy, Oracle, Sample
from flowopt.core.interfaces.step import (
    Interpolant,
    Point,
    Proposal,
    Scheme,
    StepControl,
    Trial,
    Verdict,
)

__all__ = [
    "Energy",
    "Evaluate",
    "FlowLike",
    "Increment",
    "Interpolant",
    "Key",
    "LetterMove",
    "Noise",
    "Oracle",
    "Point",
    "Proposal",
    "Sample",
    "Scheme",
    "StepControl",
    "Trial",
    "Verdict",
    "Wiener",
]
