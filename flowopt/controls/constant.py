"""Step sizes that do not depend on the trajectory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.controls.base import Control, Memory
from flowopt.core.interfaces import FlowLike, Point, Trial, Verdict
from flowopt.core.state import State, per_trajectory
from flowopt.errors import CompatibilityError


class Constant(Control):
    """One step size for the whole run.

    Args:
        step_size: h ≥ 0, a float or a (*batch,) tensor.

    Raises:
        CompatibilityError: The step size is negative or not finite.
        ConfigurationError: It is no number.
    """

    def __init__(self, step_size: float | Tensor):
        """See the class."""
        self.step_size = real_tensor("step_size", step_size)
        if not _finite_and_not_negative(self.step_size):
            raise CompatibilityError(f"a step size is finite and not negative, got {step_size!r}")

    def __repr__(self) -> str:
        """As it is written."""
        value = self.step_size
        return f"Constant({value.item() if value.ndim == 0 else tuple(value.shape)})"

    @property
    def advances(self) -> bool:
        """Whether every trajectory moves on in time."""
        return bool((self.step_size > 0).all())

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """The step size for every trajectory, and no memory."""
        state = point.state
        step_size = self.step_size.to(state.time.device)
        return per_trajectory("step_size", step_size, state.batch).clone(), ()

    def judge(self, trial: Trial) -> Verdict:
        """Accepts, and steps as far again."""
        return Verdict(None, trial.step_size, trial.memory)


def _finite_and_not_negative(step_size: Tensor) -> bool:
    if step_size.ndim == 0:
        return 0.0 <= float(step_size) < math.inf
    return bool((torch.isfinite(step_size) & (step_size >= 0)).all())


class Schedule(Control):
    """Step size as a function of the step number.

    Args:
        function: Step number 0, 1, … → h ≥ 0. Any Python function; it is tabulated for every chunk
            of steps, and so never called inside the stepping code.

    Raises:
        CompatibilityError: The function is none, or gives what is no step size.
    """

    def __init__(self, function: Callable[[int], float]):
        """See the class."""
        if not callable(function):
            raise CompatibilityError(
                f"a schedule is a function of the step number, got {function!r}: give a function, "
                "or Constant(h) for one step size"
            )
        self.function = function

    def __repr__(self) -> str:
        """As it is written."""
        return f"Schedule({getattr(self.function, '__name__', self.function)!s})"

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """The first step size, and a table that `refresh` fills."""
        state = point.state
        return self.refresh(state, torch.zeros_like(state.time), (), 1)

    def refresh(
        self, state: State, step_size: Tensor, memory: Memory, trials: int
    ) -> tuple[Tensor, Memory]:
        """Tabulates the steps that the next trials can reach."""
        if state.step.numel() == 0:
            return step_size, (torch.zeros(1, dtype=torch.float64), torch.tensor(0))
        first, last = int(state.step.min()), int(state.step.max()) + trials
        values = [self._value(number) for number in range(first, last + 1)]
        device = state.time.device
        table = torch.tensor(values, dtype=torch.float64, device=device)
        offset = torch.tensor(first, device=device)
        return table[state.step - offset], (table, offset)

    def _value(self, number: int) -> float:
        answer = self.function(number)
        # Text has no __float__: "0.1" is refused, a number of numpy or a 0-d tensor is not.
        single = hasattr(answer, "__float__") and not getattr(answer, "shape", ())
        value = float(answer) if single else math.nan
        if not (math.isfinite(value) and value >= 0):
            raise CompatibilityError(
                f"{self!r} gives {value if single else repr(answer)} at step {number}: a step size "
                "is one number, finite and not negative"
            )
        return value

    def judge(self, trial: Trial) -> Verdict:
        """Accepts, and looks up the next step size."""
        table, offset = trial.memory
        return Verdict(None, table[trial.after.state.step - offset], trial.memory)
