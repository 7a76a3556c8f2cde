"""Symbols for equations in Python: theta, p, g (∇L), t, LOSS (L), and any other by name.

STEP_SIZE is for the time of a later start alone.
"""

from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, STEP_SIZE, g, p, symbol, t, theta

__all__ = ["LOSS", "STEP_SIZE", "g", "p", "symbol", "t", "theta", "total"]
