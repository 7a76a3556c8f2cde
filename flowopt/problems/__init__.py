"""Losses with what is known about them: landscapes, and networks with data."""

from flowopt.problems.analytic import ANALYTIC, analytic
from flowopt.problems.curvature import curvature, gauss_newton
from flowopt.problems.landscapes import (
    CriticalCurve,
    CriticalPoint,
    Landscape,
    double_well,
    quadratic,
    rosenbrock,
)
from flowopt.problems.network import Minibatches, Network, network

__all__ = [
    "ANALYTIC",
    "CriticalCurve",
    "CriticalPoint",
    "Landscape",
    "Minibatches",
    "Network",
    "analytic",
    "curvature",
    "double_well",
    "gauss_newton",
    "network",
    "quadratic",
    "rosenbrock",
]
