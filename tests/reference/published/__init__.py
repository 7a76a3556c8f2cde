"""Slow twins of published optimizers: a loop over plain tensors, as the papers print it.

Each takes the position at the start, a function that gives the gradient at a position (called once
per step, since the data may change from step to step) and the number of steps, and returns the
position at the end.
"""

from .adaptive import adabelief, yogi
from .direction import clipped_gd, lion, normalised_gd, sign_sgd, signum
from .momentum import accelerated_gradient, heavy_ball, inna
from .sampling import psgld, sghmc, sgld, sgnht

__all__ = [
    "accelerated_gradient",
    "adabelief",
    "clipped_gd",
    "heavy_ball",
    "inna",
    "lion",
    "normalised_gd",
    "psgld",
    "sghmc",
    "sgld",
    "sgnht",
    "sign_sgd",
    "signum",
    "yogi",
]
