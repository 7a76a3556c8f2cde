"""Step sizes that do not depend on the trajectory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.core.interfaces import Point, Verdict
from flowopt.core.state import State
from flowopt.errors import CompatibilityError


class Constant:
    """One step size for the whole run.

    Args:
        step_size: h ≥ 0, a float or a (*batch,) tensor.

    Raises:
        CompatibilityError: The step size is negative or not finite.
    """

    rejects = False

    def __init__(self, step_size: float | Tensor):
        """See the class."""
        self.step_size = torch.as_tensor(step_size, dtype=torch.float64)
        if not bool((torch.isfinite(self.step_size) & (self.step_size >= 0)).all()):
            raise CompatibilityError(f"a step size is finite and not negative, got {step_size!r}")

    def __repr__(self) -> str:
        """As it is written."""
        value = self.step_size
        return f"Constant({value.item() if value.ndim == 0 else tuple(value.shape)})"

    def start(self, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The step size for every trajectory, and no memory."""
        try:
            return self.step_size.to(state.time.device).expand(state.batch).clone(), ()
        except RuntimeError as error:
            raise CompatibilityError(
                f"step sizes of shape {tuple(self.step_size.shape)} do not fit a batch of shape "
                f"{tuple(state.batch)}: give one number, or one per trajectory"
            ) from error

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Nothing to do."""
        return step_size, memory

    def judge(
        self, before: Point, after: Point, step_size: Tensor, memory: tuple[Tensor, ...]
    ) -> Verdict:
        """Accepts, and steps as far again."""
        return Verdict(None, step_size, memory)


class Schedule:
    """Step size as a function of the step number.

    Args:
        function: Step number 0, 1, … → h ≥ 0. Any Python function; it is tabulated for every chunk
            of steps, and so never called inside the stepping code.
    """

    rejects = False

    def __init__(self, function: Callable[[int], float]):
        """See the class."""
        self.function = function

    def __repr__(self) -> str:
        """As it is written."""
        return f"Schedule({getattr(self.function, '__name__', self.function)!s})"

    def start(self, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The first step size, and a table that `refresh` fills."""
        return self.refresh(state, torch.zeros_like(state.time), (), 1)

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tabulates the steps that the next trials can reach."""
        if state.step.numel() == 0:
            return step_size, (torch.zeros(1, dtype=torch.float64), torch.tensor(0))
        first, last = int(state.step.min()), int(state.step.max()) + trials
        values = [float(self.function(number)) for number in range(first, last + 1)]
        wrong = [i for i, value in enumerate(values) if not (math.isfinite(value) and value >= 0)]
        if wrong:
            raise CompatibilityError(
                f"{self!r} gives {values[wrong[0]]} at step {first + wrong[0]}: a step size is "
                "finite and not negative"
            )
        device = state.time.device
        table = torch.tensor(values, dtype=torch.float64, device=device)
        offset = torch.tensor(first, device=device)
        return table[state.step - offset], (table, offset)

    def judge(
        self, before: Point, after: Point, step_size: Tensor, memory: tuple[Tensor, ...]
    ) -> Verdict:
        """Accepts, and looks up the next step size."""
        table, offset = memory
        return Verdict(None, table[after.state.step - offset], memory)
