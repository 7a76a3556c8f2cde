"""What is written down along a trajectory."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flowopt.core.interfaces import FlowLike, Oracle
from flowopt.errors import ConfigurationError
from flowopt.stepper import Carry

NEVER = torch.nan


class Recorder:
    """Records quantities every so many accepted steps of each trajectory.

    Args:
        record: Name → every, name → (every, function), or function → every.
        flow: Whose energies and variables can be named.
        oracle: Joins positions.
        step_size: The constant step size, if there is one: it turns rates per step into rates.

    Raises:
        ConfigurationError: A name is unknown or an interval is no positive whole number.
    """

    def __init__(
        self, record: Mapping, flow: FlowLike, oracle: Oracle, step_size: float | Tensor | None
    ):
        """See the class."""
        if record and not isinstance(record, Mapping):
            raise ConfigurationError(
                f"record maps names to intervals, as in {{'loss': 10}}, got {record!r}"
            )
        self._flow, self._oracle, self._step_size = flow, oracle, step_size
        self._series = [self._item(key, value) for key, value in dict(record or {}).items()]
        names = [name for name, _, _ in self._series]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(
                f"two records are called {twice[0]!r}: give functions names, as in "
                "{'speed': (10, function)}"
            )
        self._taken: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
        self._first: Tensor | None = None
        self._last: Tensor | None = None

    @property
    def intervals(self) -> list[int]:
        """Steps between records, one interval per series."""
        return [every for _, every, _ in self._series]

    def take(self, carry: Carry) -> None:
        """Writes down what is due."""
        step = carry.state.step
        if self._first is None:
            self._first = step
            moved = torch.ones_like(step, dtype=torch.bool)
        else:
            moved = step != self._last
        self._last = step
        for name, every, function in self._series:
            due = moved & ((step - self._first) % every == 0)
            if bool(due.any()):
                value = function(carry)
                value = value if value.is_floating_point() else value.to(torch.float64)
                self._write(self._taken[name], carry, (step - self._first) // every, due, value)

    def result(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Records (time, *batch, …) and their times (time, *batch)."""
        records = {name: _stacked([v for _, v in rows]) for name, rows in self._taken.items()}
        times = {name: _stacked([t for t, _ in rows]) for name, rows in self._taken.items()}
        return records, times

    def _write(self, rows: list, carry: Carry, slot: Tensor, due: Tensor, value: Tensor) -> None:
        """Puts values into the rows of their slots; trajectories may be at different ones."""
        for index in torch.unique(slot[due]).tolist():
            while len(rows) <= index:
                time = carry.state.time
                rows.append((torch.full_like(time, NEVER), torch.full_like(value, NEVER)))
            here = due & (slot == index)
            times, values = rows[index]
            spread = here.reshape(here.shape + (1,) * (value.ndim - here.ndim))
            rows[index] = (
                torch.where(here, carry.state.time, times),
                torch.where(spread, value, values),
            )

    def _item(self, key: object, value: object) -> tuple[str, int, Callable]:
        every, function = value, None
        if isinstance(value, tuple):
            if len(value) != 2 or not callable(value[1]):
                raise ConfigurationError(
                    f"record {key!r}: {value!r} is no pair (every, function): give a function of "
                    "(state, evaluation), as in (10, lambda state, evaluation: evaluation.loss)"
                )
            every, function = value
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigurationError(
                f"record {key!r}: {every!r} is no interval; give a positive whole number of steps"
            )
        if callable(key):
            name = getattr(key, "__name__", "function")
            return name, every, _observed(name, key)
        if function is not None:
            return str(key), every, _observed(str(key), function)
        return str(key), every, self._named(str(key))

    def _named(self, name: str) -> Callable:
        flow = self._flow
        variables, scalars = flow.variables, flow.scalars
        energies = list(flow.energies)
        if name == "position":
            return lambda carry: self._joined(carry.state.position)
        if name in variables:
            return lambda carry: self._joined(carry.state.variables[name])
        if name in scalars:
            return lambda carry: carry.state.scalars[name]
        if name == "loss":
            return lambda carry: carry.evaluation.loss
        if name == "step_size":
            return lambda carry: carry.step_size
        if name in energies or (name == "energy" and energies):
            energy = self._physical().energy(name if name in energies else energies[0])
            return lambda carry: energy.value(carry.state, carry.evaluation)
        raise ConfigurationError(
            f"nothing called {name!r} to record: flow {flow.name!r} has 'position', 'loss', "
            f"'step_size', variables {[*variables, *scalars]}, energies {energies}; "
            "or give (every, function of (state, evaluation))"
        )

    def _physical(self) -> FlowLike:
        if not self._flow.per_step or self._step_size is None:
            return self._flow
        return self._flow.at_step_size(torch.as_tensor(self._step_size, dtype=torch.float64))

    def _joined(self, leaves: tuple[Tensor, ...]) -> Tensor:
        joined = self._oracle.join(leaves)
        if isinstance(joined, Tensor):
            return joined
        batch = len(self._oracle.batch(leaves))
        return torch.cat([leaf.flatten(batch) for leaf in joined.values()], -1)


def _stacked(rows: list[Tensor]) -> Tensor:
    """Rows along a first axis of time; none of them for a batch without members."""
    return torch.stack(rows) if rows else torch.empty(0)


def _observed(name: str, function: Callable) -> Callable:
    def value(carry: Carry) -> Tensor:
        answer = function(carry.state, carry.evaluation)
        try:
            return torch.as_tensor(answer)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the function of record {name!r} gave {answer!r}, expected a tensor or a number"
            ) from error

    return value
