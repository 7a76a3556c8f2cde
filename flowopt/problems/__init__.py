"""Losses with what is known about them: landscapes, and networks with data."""

from flowopt.problems.landscapes import (
    CriticalPoint,
    Landscape,
    double_well,
    quadratic,
    rosenbrock,
)
from flowopt.problems.network import Minibatches, Network, network

__all__ = [
    "CriticalPoint",
    "Landscape",
    "Minibatches",
    "Network",
    "double_well",
    "network",
    "quadratic",
    "rosenbrock",
]
