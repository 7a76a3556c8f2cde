"""Step sizes by whether a scheme could make the step."""

import math

import torch
from torch import Tensor

from flowopt.controls.base import Control
from flowopt.controls.settings import FACTOR, GROWTH, bounded_steps, number
from flowopt.core.interfaces import FlowLike, Scheme, Trial, Verdict
from flowopt.errors import CompatibilityError


class Solved(Control):
    """Takes every step that its scheme could solve, and a shorter one where it could not.

    h·growth after a step, h·shrink after a failure. For `flowopt.Projected` and
    `flowopt.EnergyMidpoint`, whose steps lose exactly what the energy ought to lose, so that there
    is nothing else to judge.

    Args:
        shrink: Factor in (0, 1) after a failure.
        growth: Factor ≥ 1 after a step.
        first_step: h of the first trial, a float or a (*batch,) tensor.
        largest_step: Bound of h.

    Raises:
        ConfigurationError: A number is out of its range.

    Reference:
        Bensaid, Poëtte & Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4, with
        growth 1.5 where less than five of up to 1000 iterations were enough.
    """

    rejects = True
    weighs_loss = True
    sampling = "step"
    shown = ("shrink", "growth")

    def __init__(
        self,
        *,
        shrink: float = 0.5,
        growth: float = 1.2,
        first_step: float | Tensor = 0.1,
        largest_step: float = math.inf,
    ):
        """See the class."""
        self.shrink = number("shrink", shrink, FACTOR)
        self.growth = number("growth", growth, GROWTH)
        self.first_step, self.largest_step = bounded_steps(first_step, largest_step)

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` for schemes that solve nothing."""
        super().check(flow, scheme)
        if not getattr(scheme, "solves", False):
            raise CompatibilityError(
                f"{self!r} would take every step of {scheme!r}, which solves no equation: use "
                "LyapunovControl, ErrorControl or Constant"
            )

    def judge(self, trial: Trial) -> Verdict:
        """Accepts what is finite and solved."""
        longer = torch.clamp(self.growth * trial.step_size, max=self.largest_step)
        step_size = torch.where(trial.finite, longer, self.shrink * trial.step_size)
        return Verdict(trial.finite, step_size, ())
