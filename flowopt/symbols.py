"""Symbols for equations in Python: theta, p, g (∇L), t, LOSS (L), and any other by name."""

from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, g, p, symbol, t, theta

__all__ = ["LOSS", "g", "p", "symbol", "t", "theta", "total"]
