"""Step sizes by whether a scheme could make the step."""

import math

import torch
from torch import Tensor

from flowopt.controls.settings import check_positive, first_steps
from flowopt.core.interfaces import FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import State
from flowopt.errors import CompatibilityError, ConfigurationError


class Solved:
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
    advances = False
    remembers_position = False
    sampling = "step"

    def __init__(
        self,
        *,
        shrink: float = 0.5,
        growth: float = 1.2,
        first_step: float | Tensor = 0.1,
        largest_step: float = math.inf,
    ):
        """See the class."""
        ranges = {
            "shrink": (shrink, 0 < shrink < 1, "lies between 0 and 1"),
            "growth": (growth, 1 <= growth < math.inf, "is finite and at least 1"),
            "largest_step": (largest_step, largest_step > 0, "is positive"),
        }
        for name, (value, fits, meaning) in ranges.items():
            if not fits:
                raise ConfigurationError(f"{name} {meaning}, got {value!r}")
        check_positive(first_step=first_step)
        self.shrink, self.growth, self.largest_step = (
            torch.tensor(value, dtype=torch.float64) for value in (shrink, growth, largest_step)
        )
        self.first_step = first_step

    def __repr__(self) -> str:
        """As it is written."""
        return f"Solved(shrink={self.shrink.item():g}, growth={self.growth.item():g})"

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` for schemes that solve nothing."""
        if not getattr(scheme, "solves", False):
            raise CompatibilityError(
                f"{self!r} would take every step of {scheme!r}, which solves no equation: use "
                "LyapunovControl, ErrorControl or Constant"
            )

    def uses_gradient(self, flow: FlowLike) -> bool:
        """No."""
        return False

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, tuple[Tensor, ...]]:
        """First step size for every trajectory."""
        return first_steps(self.first_step, point), ()

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Nothing to do."""
        return step_size, memory

    def judge(self, trial: Trial) -> Verdict:
        """Accepts what is finite and solved."""
        longer = torch.clamp(self.growth * trial.step_size, max=self.largest_step)
        step_size = torch.where(trial.finite, longer, self.shrink * trial.step_size)
        return Verdict(trial.finite, step_size, ())
