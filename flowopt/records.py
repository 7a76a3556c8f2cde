"""What is written down along a trajectory."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.interfaces import FlowLike, Interpolant
from flowopt.core.state import State, select
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.stepper import END_TOLERANCE, Carry, Stepper

NEVER = torch.nan
INTERPOLATES = "records at times are interpolated from the stages of a step, which a kernel drops"


class Recorder:
    """Records quantities every so many accepted steps of each trajectory, or at given times.

    Args:
        record: Name → every, name → (every, function), function → every, or name → times.
        stepper: Whose flow's energies and variables can be named.
        step_size: The constant step size, if there is one: it turns rates per step into rates.

    Raises:
        CompatibilityError: Times are given and the scheme does not interpolate.
        ConfigurationError: A name is unknown, an interval is no positive whole number, times do
            not increase, or what is named is not interpolated.
    """

    def __init__(
        self, record: Mapping | tuple[()], stepper: Stepper, step_size: float | Tensor | None
    ):
        """See the class."""
        if record and not isinstance(record, Mapping):
            raise ConfigurationError(
                f"record maps names to intervals, as in {{'loss': 10}}, got {record!r}"
            )
        self._flow, self._step_size = stepper.flow, step_size
        self._scheme = stepper.scheme
        self._series: list[tuple[str, int, Callable]] = []
        self._at_times: dict[str, AtTimes] = {}
        for key, value in dict(record or {}).items():
            if isinstance(value, Tensor):
                self._at_times[str(key)] = self._interpolated(key, value)
            else:
                self._series.append(self._item(key, value))
        names = [*(name for name, _, _ in self._series), *self._at_times]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(
                f"two records are called {twice[0]!r}: give functions names, as in "
                "{'speed': (10, function)}"
            )
        self._taken: dict[str, list[tuple[Tensor, Tensor]]] = {n: [] for n, _, _ in self._series}
        self._first: Tensor | None = None
        self._last: Tensor | None = None

    @property
    def intervals(self) -> list[int]:
        """Steps between records, one interval per series."""
        return [every for _, every, _ in self._series]

    @property
    def against_kernel(self) -> str | None:
        """Why steps by a kernel can not be recorded; None where they can."""
        return INTERPOLATES if self._at_times else None

    def take(self, carry: Carry, interpolant: Interpolant | None = None) -> None:
        """Writes down what is due; the interpolant is that of the step that led here."""
        step = carry.state.step
        if self._first is None:
            self._first = step
            moved = torch.ones_like(step, dtype=torch.bool)
        else:
            moved = step != self._last
        self._last = step
        for series in self._at_times.values():
            series.take(carry, interpolant)
        for name, every, function in self._series:
            due = moved & ((step - self._first) % every == 0)
            if bool(due.any()) or not self._taken[name]:
                value = function(carry)
                value = value if value.is_floating_point() else value.to(torch.float64)
                self._write(self._taken[name], carry, (step - self._first) // every, due, value)

    def result(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Records (time, *batch, …) and their times (time, *batch)."""
        records = {name: torch.stack([v for _, v in rows]) for name, rows in self._taken.items()}
        times = {name: torch.stack([t for t, _ in rows]) for name, rows in self._taken.items()}
        for name, series in self._at_times.items():
            records[name], times[name] = series.result()
        return records, times

    def _write(self, rows: list, carry: Carry, slot: Tensor, due: Tensor, value: Tensor) -> None:
        """Puts values into the rows of their slots; trajectories may be at different ones."""
        # A batch without members has the row of the start, which says its shape.
        for index in torch.unique(slot[due]).tolist() or [0]:
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
                f"record {key!r}: {every!r} is no interval; give a positive whole number of steps; "
                "position and variables alone are recorded at times too, a float64 tensor"
            )
        if callable(key):
            name = getattr(key, "__name__", "function")
            return name, every, _observed(name, key)
        if function is not None:
            return str(key), every, _observed(str(key), function)
        return str(key), every, self._named(str(key))

    def _interpolated(self, key: object, times: Tensor) -> "AtTimes":
        names = ["position", *self._flow.variables, *self._flow.scalars]
        if key not in names:
            raise ConfigurationError(
                f"record {key!r} at times: interpolated are {names}; record those and compute from "
                "them what is needed, or give a number of steps"
            )
        if not self._scheme.interpolant_order:
            raise CompatibilityError(
                f"record {key!r} at times: {self._scheme!r} gives no states within its steps: use "
                "RungeKutta('dopri5') or 'tsit5', or give a number of steps"
            )
        increasing = times.ndim == 1 and bool((times.diff() > 0).all())
        if times.dtype != torch.float64 or not increasing or not bool(times.isfinite().all()):
            raise ConfigurationError(
                f"record {key!r}: times are one-dimensional, finite, increasing and in float64, "
                f"got {times!r}"
            )
        return AtTimes(times, self._named(str(key)))

    def _named(self, name: str) -> Callable:
        flow = self._flow
        variables, scalars = flow.variables, flow.scalars
        energies = list(flow.energies)
        if name == "position" or name in variables:
            variable = "theta" if name == "position" else name
            return lambda carry: _side_by_side(carry.state, variable)
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


class AtTimes:
    """Values at given times, interpolated within the step of each trajectory that contains them.

    Args:
        times: (time,), float64, increasing.
        function: Of a carry, whose state may lie within a step.
    """

    def __init__(self, times: Tensor, function: Callable[[Carry], Tensor]):
        """See the class."""
        self._times, self._function = times, function
        self._began: Tensor | None = None

    def take(self, carry: Carry, interpolant: Interpolant | None) -> None:
        """Writes down what lies in the step that led here, one time per trajectory in turn."""
        now, began = carry.state.time, self._began
        if began is None:
            self._begin(carry)
            began = now
        self._began = now
        # A time that misses a step's end by rounding is not left to a step that may never come.
        end = now + END_TOLERANCE * (now - began)
        while True:
            time = self._times[self._next]
            due = time <= end
            if not bool(due.any()):
                return
            share = torch.where(due & (time != now), (time - began) / (now - began), 1.0)
            state = carry.state
            if interpolant is not None:
                state = select(share == 1.0, state, interpolant(share))
            value = self._function(replace(carry, state=state))
            members = due.reshape(-1).nonzero()[:, 0]
            places = self._next.reshape(-1)[members], members
            self._values[places] = value.reshape(self._values.shape[1:])[members]
            self._moments[places] = time.reshape(-1)[members]
            self._next = self._next + due

    def result(self) -> tuple[Tensor, Tensor]:
        """Values (time, *batch, …) and their times (time, *batch)."""
        shape = (len(self._moments), *self._next.shape)
        values = self._values.reshape(shape + self._values.shape[2:])
        return values, self._moments.reshape(shape)

    def _begin(self, carry: Carry) -> None:
        """Makes room, and finds each trajectory's first time."""
        now, value = carry.state.time, self._function(carry)
        times = self._times.to(now.device)
        self._next = torch.searchsorted(times, now)
        self._times = torch.cat([times, times.new_tensor([torch.inf])])
        shape = (len(times), now.numel())
        self._values = value.new_full(shape + value.shape[now.ndim :], NEVER)
        self._moments = now.new_full(shape, NEVER)


def _observed(name: str, function: Callable) -> Callable:
    def value(carry: Carry) -> Tensor:
        answer, batch = function(carry.state, carry.evaluation), carry.state.batch
        try:
            tensor = torch.as_tensor(answer)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the function of record {name!r} gave {answer!r}, expected a tensor or a number"
            ) from error
        apart = tensor.ndim > 0 and tensor.shape[: len(batch)] != batch
        if apart or tensor.is_complex():
            raise ConfigurationError(
                f"the function of record {name!r} gave {tensor.dtype}, {tuple(tensor.shape)}, "
                f"expected real numbers of shape {tuple(batch)} or {(*batch, '…')}, for each "
                "trajectory its own, or a single one"
            )
        return tensor

    return value


def _side_by_side(state: State, variable: str) -> Tensor:
    """The elements of a variable, (*batch, elements); that of a block has only its own."""
    batch = state.time.ndim
    leaves = state.variables[variable]
    return torch.cat(
        [leaf.flatten(batch) if leaf.ndim > batch else leaf[..., None] for leaf in leaves], -1
    )
