"""A stepper's `advance` as a function of tensors: what it is made of, and a trace of it."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.interfaces import Point
from flowopt.core.noise import PhiloxNoise
from flowopt.kernels.loop import as_loop
from flowopt.kernels.native.build import Code, load
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.native.trajectories import Source, print_trajectories
from flowopt.kernels.program import UnfitError
from flowopt.kernels.tracing.trace import Traced, trace

MOST_TRACES = 64
# A batch size that no table of a control has by accident when it starts.
ROWS = 5


class Inputs(NamedTuple):
    """Tensors of a step, flattened.

    Attributes:
        tensors: Carry first, then surroundings.
        lanes: Whether there is one value per trajectory, on the batch dimensions.
        spec: Of (carry, surroundings).
        carried: How many belong to the carry.
        status: Place of the status.
        memory: Places of what the control remembers.
        step_size: Place of the step size.
        scalars: Places that may be equal for all trajectories.
    """

    tensors: list[Tensor]
    lanes: list[bool]
    spec: pytree.TreeSpec
    carried: int
    status: int
    memory: tuple[int, ...]
    step_size: int
    scalars: frozenset[int]

    def rest(self, place: int) -> tuple[int, ...]:
        """Shape of one trajectory's part of a tensor."""
        batch = self.tensors[self.status].ndim
        return tuple(self.tensors[place].shape[batch:])


def inputs_of(stepper: Any, carry: Any) -> Inputs:
    """Everything that a step of this stepper reads, but for what the loss closes over."""
    batch = carry.state.batch
    surroundings = _surroundings(stepper, batch)
    tensors, spec = pytree.tree_flatten((carry, surroundings))
    carried = len(pytree.tree_leaves(carry))
    memory = _places(carry, "memory")
    step_size, status = _places(carry, "step_size"), _places(carry, "status")
    lanes = [tensor.shape[: len(batch)] == batch for tensor in tensors]
    for place in range(carried, len(tensors)):
        # Settings are one number, or one per trajectory; a batch of () has one trajectory.
        lanes[place] = tensors[place].shape == batch != ()
    state = carry.state
    common = {
        id(t)
        for t in (carry.gradients, carry.rejected, state.time, state.step, *state.scalars.values())
    }
    if isinstance(stepper.noise, PhiloxNoise):
        index = next(i for i, t in enumerate(tensors) if t is stepper.noise.trajectory)
        lanes[index] = True
    if memory:
        for place, lane in zip(memory, _memory_lanes(stepper, carry, surroundings), strict=True):
            lanes[place] = lane
    scalars = {i for i, t in enumerate(tensors) if id(t) in common}
    scalars |= {*step_size, *(i for i in range(carried, len(tensors)) if lanes[i])}
    return Inputs(
        tensors, lanes, spec, carried, status[0], memory, step_size[0], frozenset(scalars)
    )


def _places(carry: Any, name: str) -> tuple[int, ...]:
    """Where an attribute of the carry lies among its leaves."""
    marks = pytree.tree_map(lambda _: object(), getattr(carry, name))
    known = {id(mark) for mark in pytree.tree_leaves(marks)}
    leaves = pytree.tree_leaves(replace(carry, **{name: marks}))
    return tuple(i for i, leaf in enumerate(leaves) if id(leaf) in known)


def _memory_lanes(stepper: Any, carry: Any, surroundings: dict[str, Any]) -> list[bool]:
    """Which memory of the control is one value per trajectory: it grows with the batch."""
    batch = carry.state.batch

    def few(tensor: Tensor) -> Tensor:
        if tensor.shape[: len(batch)] != batch:
            return tensor
        flat = tensor.reshape((-1, *tensor.shape[len(batch) :]))
        return flat[:1].expand((ROWS, *flat.shape[1:])).clone()

    start = Point(*pytree.tree_map(few, (carry.state, carry.evaluation)))
    settings = pytree.tree_map(lambda t: few(t) if t.ndim else t, surroundings)
    small = rebound(stepper, settings)
    _, memory = small.control.start(start, small.flow)
    return [tensor.shape[:1] == (ROWS,) for tensor in memory]


def _parts(thing: object) -> dict[str, Tensor]:
    """Tensors that a setting holds as attributes."""
    held = getattr(thing, "__dict__", {})
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _surroundings(stepper: Any, batch: torch.Size) -> dict[str, Any]:
    """What a step reads besides the carry: settings that may change without a new program."""
    hyperparameters = getattr(stepper.flow, "hyperparameters", {})
    found: dict[str, Any] = {
        "control": _parts(stepper.control),
        "scheme": _parts(stepper.scheme),
        "hyperparameters": {
            name: value.expand(batch) if value.ndim else value
            for name, value in hyperparameters.items()
        },
        "ends": [t for t in (stepper.end_time, stepper.last_step) if t is not None],
    }
    if stepper.stop is not None:
        found["stop"] = _parts(stepper.stop.condition)
    if isinstance(stepper.noise, PhiloxNoise):
        found["noise"] = [stepper.noise.seed, stepper.noise.trajectory]
    return found


def _with_parts(thing: Any, parts: dict[str, Tensor]) -> Any:
    if not parts:
        return thing
    changed = copy.copy(thing)
    changed.__dict__.update(parts)
    return changed


def rebound(stepper: Any, surroundings: dict[str, Any]) -> Any:
    """The same stepper with other tensors in its settings."""
    ends = list(surroundings["ends"])
    changes: dict[str, Any] = {
        "control": _with_parts(stepper.control, surroundings["control"]),
        "scheme": _with_parts(stepper.scheme, surroundings["scheme"]),
        "end_time": None if stepper.end_time is None else ends.pop(0),
        "last_step": None if stepper.last_step is None else ends.pop(0),
    }
    if surroundings["hyperparameters"]:
        changes["flow"] = stepper.flow.with_hyperparameters(**surroundings["hyperparameters"])
    if "stop" in surroundings:
        condition = _with_parts(stepper.stop.condition, surroundings["stop"])
        changes["stop"] = replace(stepper.stop, condition=condition)
    if "noise" in surroundings:
        seed, trajectory = surroundings["noise"]
        changes["noise"] = stepper.noise._replace(seed=seed, trajectory=trajectory)
    return replace(stepper, **changes)


def step_function(stepper: Any, spec: pytree.TreeSpec) -> Callable[..., list[Tensor]]:
    """`advance` as a function of flat tensors to the flat tensors of the next carry."""

    def function(*tensors: Tensor) -> list[Tensor]:
        carry, surroundings = pytree.tree_unflatten(list(tensors), spec)
        moved = rebound(stepper, surroundings).advance(carry)
        results, after = pytree.tree_flatten((moved, surroundings))
        if after != spec:
            raise UnfitError("a step changes which numbers are carried on")
        return results[: len(pytree.tree_leaves(moved))]

    return function


def frozen(thing: object, kept: list) -> Hashable:
    """A key of a setting without its tensors; what is not ours is keyed by identity."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, tuple):
        return (type(thing), *(frozen(item, kept) for item in thing))
    if isinstance(thing, dict):
        return tuple((key, frozen(value, kept)) for key, value in sorted(thing.items()))
    held = getattr(thing, "__dict__", None)
    ours = type(thing).__module__.partition(".")[0] == "flowopt"
    if ours and isinstance(held, dict):
        items = ((name, v) for name, v in sorted(held.items()) if not isinstance(v, Tensor))
        return (type(thing), *((name, frozen(value, kept)) for name, value in items))
    return identity(thing, kept)


def identity(thing: object, kept: list) -> Hashable:
    """A key of an object that is kept, so that no other takes its place."""
    kept.append(thing)
    return (type(thing), id(thing))


@dataclass
class TracedStep:
    """A trace with the kernels and checks that were made from it.

    Attributes:
        traced: The program.
        kept: Objects by whose identity it is known, kept so that no other takes their place.
        compiled: Kernels by the slots that are equal for all trajectories.
        checked: Which of them have been compared with eager torch over a whole step.
    """

    traced: Traced
    kept: list
    compiled: dict[frozenset[int], tuple[Source, Code]] = field(default_factory=dict)
    checked: set[frozenset[int]] = field(default_factory=set)

    def kernel(self, status: int, alike: frozenset[int]) -> tuple[Source, Code]:
        """The kernel for trajectories that have the values of some slots in common."""
        if alike not in self.compiled:
            machine = this_machine()
            loop = as_loop(self.traced, status, alike)
            source = print_trajectories(loop, machine)
            self.compiled[alike] = source, load(source.text, source.symbols, machine)
        return self.compiled[alike]

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether shapes are as traced and tensors that served as indices have not changed."""
        arguments = self.traced.arguments
        unrolled = {n.data[0] for n in self.traced.program.nodes if n.op == "input"}
        held = [*tensors, *self.traced.captured]
        for slot, (argument, tensor) in enumerate(zip(arguments, held, strict=True)):
            shape = tuple(tensor.shape)
            table = slot not in unrolled and len(shape) == len(argument.shape) == 1
            fixed = argument.lane or table or shape == argument.shape
            if tensor.dtype != argument.dtype or not fixed:
                return False
        return all(
            torch.equal(self.traced.captured[place], contents)
            for place, contents in self.traced.baked.items()
        )


class Traces:
    """Traces by what was traced, the latest used ones."""

    def __init__(self):
        self._known: OrderedDict[Hashable, TracedStep | UnfitError] = OrderedDict()

    def get(self, stepper: Any, inputs: Inputs, *, renew: bool = False) -> TracedStep:
        """The trace of a stepper's step, made now if there is none or it is to be renewed.

        Raises:
            UnfitError: The step can not be a scalar program.
        """
        kept: list = []
        key = _key(stepper, inputs, kept)
        known = self._known.get(key)
        outdated = isinstance(known, TracedStep) and not known.fits(inputs.tensors)
        if known is None or renew or outdated:
            known = self._known[key] = _traced(stepper, inputs, kept)
            while len(self._known) > MOST_TRACES:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        if isinstance(known, UnfitError):
            raise known
        return known


def _traced(stepper: Any, inputs: Inputs, kept: list) -> TracedStep | UnfitError:
    """A new trace, or why there is none: a refusal is remembered too."""
    samples = [
        tensor.reshape((-1, *inputs.rest(place)))[:1] if lane else tensor
        for place, (tensor, lane) in enumerate(zip(inputs.tensors, inputs.lanes, strict=True))
    ]
    try:
        return TracedStep(trace(step_function(stepper, inputs.spec), samples, inputs.lanes), kept)
    except UnfitError as error:
        error.kept = kept
        return error


def _key(stepper: Any, inputs: Inputs, kept: list) -> Hashable:
    flow, oracle, stop = stepper.flow, stepper.oracle, stepper.stop
    equations = getattr(flow, "equations", None)
    if equations is None:
        what = identity(flow, kept)
    else:
        what = (equations, flow.name, getattr(flow, "per_step", None))
    layout = tuple(
        (tensor.dtype, lane, inputs.rest(place) if lane else tensor.ndim)
        for place, (tensor, lane) in enumerate(zip(inputs.tensors, inputs.lanes, strict=True))
    )
    return (
        what,
        frozen(stepper.scheme, kept),
        frozen(stepper.control, kept),
        identity(getattr(oracle, "problem", oracle), kept),
        None if stop is None else (frozen(stop.condition, kept), int(stop.status)),
        (type(stepper.noise), getattr(stepper.noise, "offsets", None)),
        (stepper.end_time is None, stepper.last_step is None, stepper.observed),
        inputs.spec,
        layout,
    )
