"""Step sizes by error: as long as the estimate of the local error allows."""

import torch
from torch import Tensor

from flowopt.controls.base import EstimateControl, Memory
from flowopt.controls.settings import (
    POSITIVE,
    first_steps,
    number,
    numbers,
)
from flowopt.core.interfaces import FlowLike, Point, Trial, Verdict
from flowopt.core.state import State, lift

SAFETY = 0.9
SMALLEST_FACTOR, LARGEST_FACTOR = 0.2, 5.0
# Exponents of the proportional–integral controller, over the order of the error.
PROPORTIONAL, INTEGRAL = 0.7, 0.4
# An error of zero would let the step grow without bound and the next one fail.
SMALLEST_ERROR = 1e-10


class ErrorControl(EstimateControl):
    """Accepts steps whose estimated error is within tolerance, each trajectory by itself.

    error = RMS over all variables of e / (atol + rtol·max(|z|, |z after|)) ≤ 1, and
    h' = h · clip(0.9 · error^(−0.7/k) · previous^(0.4/k), 0.2, 5) with k the order of the embedded
    solution plus one. After a rejection the step does not grow.

    Args:
        rtol: Relative tolerance. Below the spacing of numbers, 2e-16 in float64 and 1e-7 in
            float32, it counts as that: rounding is no error that a shorter step mends.
        atol: Absolute tolerance, unit of the variables.
        first_step: First step size; estimated from the drift where not given.

    Raises:
        ConfigurationError: A number is not positive and finite.

    Reference:
        Gustafsson 1991, ACM Trans. Math. Softw. 17(4), 533; Hairer, Nørsett & Wanner 1993, Solving
        Ordinary Differential Equations I, section II.4.
    """

    shown = ("rtol", "atol")

    def __init__(
        self, *, rtol: float = 1e-6, atol: float = 1e-9, first_step: float | Tensor | None = None
    ):
        """See the class."""
        self.rtol = number("rtol", rtol, POSITIVE)
        self.atol = number("atol", atol, POSITIVE)
        self.estimates_first = first_step is None
        if first_step is not None:
            self.first_step = numbers("first_step", first_step, POSITIVE)

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """First step size; remembers the log of the last error and whether a step was rejected."""
        state = point.state
        memory = (torch.zeros_like(state.time), torch.zeros_like(state.time, dtype=torch.bool))
        if not self.estimates_first:
            return first_steps(self.first_step, point), memory
        slope = flow.drift(state, point.evaluation)
        size = torch.sqrt(self._mean_square(state, state, state))
        speed = torch.sqrt(self._mean_square(slope, state, state))
        # Nothing is known either where a variable at 0 moves, in units of an `atol` near 0.
        unknown = (size < 1e-5) | (speed < 1e-5) | (speed == torch.inf)
        return torch.where(unknown, 1e-6, 0.01 * size / speed), memory

    def judge(self, trial: Trial) -> Verdict:
        """Accepts errors up to 1; the next step follows this error and the one before."""
        previous, failed = trial.memory
        assert trial.error is not None
        square = self._mean_square(trial.error, trial.before.state, trial.after.state)
        accept = trial.finite & (square <= 1.0)
        # One logarithm and one exponential: powers cost a kernel more than a step.
        size = 0.5 * torch.log(torch.clamp(square, min=SMALLEST_ERROR**2))
        order = trial.error_order + 1
        after_acceptance = (INTEGRAL / order) * previous - (PROPORTIONAL / order) * size
        exponent = torch.where(accept, after_acceptance, (-1.0 / order) * size)
        factor = torch.clamp(SAFETY * torch.exp(exponent), min=SMALLEST_FACTOR, max=LARGEST_FACTOR)
        factor = torch.where(accept & ~failed, factor, torch.clamp(factor, max=1.0))
        # The error of a step that left the finite numbers says nothing but that it was too long.
        factor = torch.where(factor == factor, factor, SMALLEST_FACTOR)
        memory = (torch.where(accept, size, previous), ~accept)
        return Verdict(accept, trial.step_size * factor, memory)

    def _mean_square(self, tangent: State, before: State, after: State) -> Tensor:
        """Mean square over all elements, in units of the tolerance, (*batch,)."""
        total, count = torch.zeros_like(before.time), 0
        for name, leaves in tangent.variables.items():
            pairs = zip(leaves, before.variables[name], after.variables[name], strict=True)
            scaled = tuple(value / self._scale(old, new) for value, old, new in pairs)
            total = before.total((part * part for part in scaled), start=total)
            count += before.size(scaled)
        for name, value in tangent.scalars.items():
            part = value / self._scale(before.scalars[name], after.scalars[name])
            total, count = total + part * part, count + 1
        return total / count

    def _scale(self, old: Tensor, new: Tensor) -> Tensor:
        size = torch.maximum(torch.abs(old), torch.abs(new))
        rtol = torch.clamp(self.rtol, min=torch.finfo(size.dtype).eps)
        return lift(self.atol, size) + lift(rtol, size) * size
