"""The trajectory compiler: a step written in torch as one native loop over all steps."""

from flowopt.kernels.describe import Description, describe
from flowopt.kernels.engine import Runner, run
from flowopt.kernels.program import UnfitError

__all__ = ["Description", "Runner", "UnfitError", "describe", "run"]
