"""flowopt: optimizers as differential equations, and schemes that step them."""

from flowopt import adapters, analysis, classic, diagnostics, flows, optim, problems, stop, symbols
from flowopt import controls as control
from flowopt.controls import (
    Constant,
    ElementaryControl,
    ErrorControl,
    ExpectedSlope,
    GradientOnly,
    LyapunovControl,
    Schedule,
    Solved,
)
from flowopt.core.costs import forward_passes
from flowopt.core.partition import Partition
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import (
    CompatibilityError,
    ConfigurationError,
    DataError,
    DefinitionError,
    FlowoptError,
    NotFiniteError,
    PartitionError,
)
from flowopt.flows import EquationFlow as Flow
from flowopt.flows import PartitionedFlow
from flowopt.integrate import describe_kernel, integrate
from flowopt.runs import Samples, Training, sample, train
from flowopt.schemes import (
    EnergyMidpoint,
    Euler,
    EulerMaruyama,
    EulerRichardson,
    LeimkuhlerMatthews,
    LinearlyImplicitEuler,
    Projected,
    Restarted,
    RungeKutta,
    Splitting,
    Tableau,
)
from flowopt.solution import Solution
from flowopt.symbolic.language import Equations, LaterStart, Term

__all__ = [
    "CompatibilityError",
    "ConfigurationError",
    "Constant",
    "DataError",
    "DefinitionError",
    "ElementaryControl",
    "EnergyMidpoint",
    "Equations",
    "ErrorControl",
    "Euler",
    "EulerMaruyama",
    "EulerRichardson",
    "ExpectedSlope",
    "Flow",
    "FlowoptError",
    "GradientOnly",
    "LaterStart",
    "LeimkuhlerMatthews",
    "LinearlyImplicitEuler",
    "LyapunovControl",
    "NotFiniteError",
    "Partition",
    "PartitionError",
    "PartitionedFlow",
    "Projected",
    "Restarted",
    "RungeKutta",
    "Samples",
    "Schedule",
    "Solution",
    "Solved",
    "Splitting",
    "State",
    "Status",
    "Tableau",
    "Term",
    "Training",
    "adapters",
    "analysis",
    "classic",
    "control",
    "describe_kernel",
    "diagnostics",
    "flows",
    "forward_passes",
    "integrate",
    "optim",
    "problems",
    "sample",
    "stop",
    "symbols",
    "train",
]
__version__ = "0.1.0"
