"""Step sizes by the error of the step alone, as Euler–Richardson has them."""

import torch
from torch import Tensor

from flowopt.controls.base import EstimateControl
from flowopt.controls.error import SAFETY, SMALLEST_FACTOR
from flowopt.controls.settings import AT_LEAST_ONE, POSITIVE, number, numbers
from flowopt.core.interfaces import Trial, Verdict

# An error of zero would make the next step infinite.
SMALLEST_SQUARE = torch.finfo(torch.float64).tiny


class ElementaryControl(EstimateControl):
    """Accepts steps whose estimated error is within a tolerance, and remembers nothing.

    error = |e| / tolerance ≤ 1, the Euclidean norm over all variables of a trajectory, and
    h' = h · min(0.9 · error^(−1/k), largest_growth) after acceptance and rejection alike, with k
    the order of the embedded solution plus one: with `flowopt.EulerRichardson`, 0.9·h/√error.

    Args:
        tolerance: Of the error of one step, unit of the variables. Below the spacing of numbers at
            their norm |z|, 2e-16·|z| in float64 and 1e-7·|z| in float32, it counts as that:
            rounding is no error that a shorter step mends.
        first_step: h of the first trial, a float or a (*batch,) tensor.
        largest_growth: Most by which a step is longer than the one before; None for the author's
            results, made without a guard: an error of zero, or one that is not finite, leaves no
            next step, and the trajectory ends as diverged.

    Raises:
        ConfigurationError: A number is not positive, or the growth below 1.

    Reference:
        Söderlind 2002, Numer. Algorithms 31, 281; tolerance and safety as in Bensaid, Poëtte &
        Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4.
    """

    shown = ("tolerance",)

    def __init__(
        self,
        *,
        tolerance: float = 0.01,
        first_step: float | Tensor = 0.1,
        largest_growth: float | None = 5.0,
    ):
        """See the class."""
        self.tolerance = number("tolerance", tolerance, POSITIVE)
        self.first_step = numbers("first_step", first_step, POSITIVE)
        self.largest_growth = (
            None
            if largest_growth is None
            else number("largest_growth", largest_growth, AT_LEAST_ONE)
        )

    def _written(self) -> list[str]:
        growth = self.largest_growth
        written = None if growth is None else f"{growth.item():g}"
        return [*super()._written(), f"largest_growth={written}"]

    def judge(self, trial: Trial) -> Verdict:
        """Accepts errors up to 1; the next step follows this error alone."""
        error = trial.error
        assert error is not None
        before = trial.before.state
        spacing = torch.finfo(before.position[0].dtype).eps
        # Not |z| after the step: one that leaps away would raise its own tolerance.
        rounding = spacing * spacing * before.square()
        square = error.square() / torch.maximum(self.tolerance * self.tolerance, rounding)
        accept = trial.finite & (square <= 1.0)
        power = -0.5 / (trial.error_order + 1)
        if self.largest_growth is None:
            usable = (square > 0.0) & (square < torch.inf) & (accept | (square > 1.0))
            factor = SAFETY * torch.exp(power * torch.log(square))
            return Verdict(accept, trial.step_size * torch.where(usable, factor, torch.nan), ())
        square = torch.clamp(square, min=SMALLEST_SQUARE)
        factor = torch.clamp(SAFETY * torch.exp(power * torch.log(square)), max=self.largest_growth)
        # The error of a step that left the finite numbers, or an error that did, says nothing but
        # that the step was too long.
        factor = torch.where(trial.finite & (square < torch.inf), factor, SMALLEST_FACTOR)
        return Verdict(accept, trial.step_size * factor, ())
