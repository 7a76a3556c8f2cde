"""Flows for other libraries' solvers, and their solvers as references."""

from flowopt.adapters.ode import OdeSystem, to_torchdiffeq
from flowopt.adapters.reference import ReferenceSolution, reference_solution
from flowopt.adapters.system import System

__all__ = ["OdeSystem", "ReferenceSolution", "System", "reference_solution", "to_torchdiffeq"]
