"""Flows for other libraries' solvers, and their solvers as references."""

from flowopt.adapters.brownian import BrownianPath, PathNoise
from flowopt.adapters.ode import OdeSystem, to_torchdiffeq
from flowopt.adapters.reference import ReferenceSolution, reference_solution
from flowopt.adapters.sde import SdeSystem, to_torchsde
from flowopt.adapters.system import System

__all__ = [
    "BrownianPath",
    "OdeSystem",
    "PathNoise",
    "ReferenceSolution",
    "SdeSystem",
    "System",
    "reference_solution",
    "to_torchdiffeq",
    "to_torchsde",
]
