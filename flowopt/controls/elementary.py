"""Step sizes by the error of the step alone, as Euler–Richardson has them."""

import torch
from torch import Tensor

from flowopt.controls.error import SAFETY, SMALLEST_FACTOR
from flowopt.controls.settings import check_estimate, check_positive, first_steps
from flowopt.core.interfaces import FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import State
from flowopt.errors import ConfigurationError

# An error of zero would make the next step infinite, and one that no shrinking brings back.
SMALLEST_SQUARE = torch.finfo(torch.float64).tiny
LARGEST_STEP = torch.finfo(torch.float64).max


class ElementaryControl:
    """Accepts steps whose estimated error is within a tolerance, and remembers nothing.

    error = |e| / tolerance ≤ 1, the Euclidean norm over all variables of a trajectory, and
    h' = h · min(0.9 · error^(−1/k), largest_growth) after acceptance and rejection alike, with k
    the order of the embedded solution plus one: with `flowopt.EulerRichardson`, 0.9·h/√error.

    Args:
        tolerance: Of the error of one step, unit of the variables.
        first_step: h of the first trial, a float or a (*batch,) tensor.
        largest_growth: Most by which a step is longer than the one before; `math.inf` for the
            author's results.

    Raises:
        ConfigurationError: A number is not positive, or the growth below 1.

    Reference:
        Söderlind 2002, Numer. Algorithms 31, 281; tolerance and safety as in Bensaid, Poëtte &
        Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4.
    """

    rejects = True
    weighs_loss = False
    sampling = "step"
    remembers_position = False
    advances = True

    def __init__(
        self,
        *,
        tolerance: float = 0.01,
        first_step: float | Tensor = 0.1,
        largest_growth: float = 5.0,
    ):
        """See the class."""
        check_positive(tolerance=tolerance, first_step=first_step)
        if not largest_growth >= 1:
            raise ConfigurationError(f"largest_growth is at least 1, got {largest_growth!r}")
        self.tolerance, self.largest_growth = (
            torch.tensor(value, dtype=torch.float64) for value in (tolerance, largest_growth)
        )
        self.first_step = first_step

    def __repr__(self) -> str:
        """As it is written."""
        numbers = ("tolerance", "largest_growth")
        values = (f"{name}={getattr(self, name).item():g}" for name in numbers)
        return f"ElementaryControl({', '.join(values)})"

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` without an error estimate, or for noisy flows."""
        check_estimate(self, flow, scheme)

    def uses_gradient(self, flow: FlowLike) -> bool:
        """No."""
        return False

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The first step size for every trajectory, and no memory."""
        return first_steps(self.first_step, point), ()

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Nothing to do."""
        return step_size, memory

    def judge(self, trial: Trial) -> Verdict:
        """Accepts errors up to 1; the next step follows this error alone."""
        error = trial.error
        assert error is not None
        square = error.square()
        square = torch.clamp(square / (self.tolerance * self.tolerance), min=SMALLEST_SQUARE)
        accept = trial.finite & (square <= 1.0)
        factor = SAFETY * torch.exp((-0.5 / (trial.error_order + 1)) * torch.log(square))
        factor = torch.clamp(factor, max=self.largest_growth)
        # The error of a step that left the finite numbers, or an error that did, says nothing but
        # that the step was too long.
        factor = torch.where(trial.finite & (square < torch.inf), factor, SMALLEST_FACTOR)
        return Verdict(accept, torch.clamp(trial.step_size * factor, max=LARGEST_STEP), ())
