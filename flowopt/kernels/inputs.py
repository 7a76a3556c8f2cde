"""What a stepper's `advance` reads, as flat tensors."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.interfaces import Point
from flowopt.core.noise import PhiloxNoise
from flowopt.kernels.drawing import Order
from flowopt.kernels.program import UnfitError

# How tensors are put together: None for one of them, else type, names and parts.
Form = tuple[type, Any, tuple] | None

# A batch size that no table of a control has by accident when it starts.
ROWS = 5


class Inputs(NamedTuple):
    """Tensors of a step, flattened.

    Attributes:
        tensors: Carry first, then surroundings.
        lanes: Whether there is one value per trajectory, on the batch dimensions.
        spec: How (carry, surroundings) is put together of them.
        carried: How many belong to the carry.
        status: Place of the status.
        memory: Places of what the control remembers.
        step_size: Place of the step size.
        scalars: Places that may be equal for all trajectories.
        unknown: Places that follow from the others when a run starts.
        order: Places of the minibatches, as in `Order`; none where steps see all rows.
        apart: Whether trajectories see different minibatches at a time.
    """

    tensors: list[Tensor]
    lanes: list[bool]
    spec: Form
    carried: int
    status: int
    memory: tuple[int, ...]
    step_size: int
    scalars: frozenset[int]
    unknown: frozenset[int]
    order: tuple[int, ...] = ()
    apart: bool = False

    @property
    def carry(self) -> list[Tensor]:
        """Tensors of the carry."""
        return self.tensors[: self.carried]

    @property
    def carry_form(self) -> Form:
        """How the carry is put together."""
        assert self.spec is not None
        return self.spec[2][0]

    def rest(self, place: int) -> tuple[int, ...]:
        """Shape of one trajectory's part of a tensor."""
        batch = self.tensors[self.status].ndim
        return tuple(self.tensors[place].shape[batch:])


def flattened(tree: Any) -> tuple[list[Any], Form]:
    """As `pytree.tree_flatten`, which takes three times as long for what is as small as a carry."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Form:
    kind, names = type(tree), None
    if kind is dict:
        names, parts = tuple(tree), tree.values()
    elif kind is tuple or kind is list:
        parts = tree
    elif (node := pytree.SUPPORTED_NODES.get(kind)) is not None:
        parts, names = node.flatten_fn(tree)
    else:
        leaves.append(tree)
        return None
    return kind, names, tuple([_flatten(part, leaves) for part in parts])


def unflattened(leaves: Iterable[Any], form: Form) -> Any:
    """The inverse of `flattened`."""
    return _unflatten(iter(leaves), form)


def _unflatten(leaves: Iterator[Any], form: Form) -> Any:
    if form is None:
        return next(leaves)
    kind, names, forms = form
    parts = [_unflatten(leaves, part) for part in forms]
    if kind is dict:
        return dict(zip(names, parts, strict=True))
    if kind is tuple or kind is list:
        return kind(parts)
    return pytree.SUPPORTED_NODES[kind].unflatten_fn(parts, names)


def mapped(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same with a function of every tensor in its place."""
    leaves, form = flattened(tree)
    return unflattened(map(function, leaves), form)


def inputs_of(
    stepper: Any,
    carry: Any,
    memory_lanes: Sequence[bool] | None = None,
    order: Order | None = None,
) -> Inputs:
    """Everything that a step of this stepper reads, but for what the loss closes over.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        carry: Where the trajectories are.
        memory_lanes: What `lanes_of_memory` says, where that is known.
        order: Minibatches of the steps ahead.
    """
    batch = carry.state.batch
    surroundings = _surroundings(stepper, batch)
    if order is not None:
        surroundings["order"] = order.tensors
    tensors, spec = flattened((carry, surroundings))
    places = _places(carry)
    carried = places["losses"][-1] + 1
    memory, step_size, status = places["memory"], places["step_size"], places["status"]
    lanes = [tensor.shape[: len(batch)] == batch for tensor in tensors]
    for place in range(carried, len(tensors)):
        # Settings are one number, or one per trajectory; a batch of () has one trajectory.
        lanes[place] = tensors[place].shape == batch != ()
    state = carry.state
    common = {
        id(t)
        for t in (
            *(carry.gradients, carry.rejected, carry.products, carry.losses),
            *(state.time, state.step),
            *state.scalars.values(),
        )
    }
    if _draws(stepper):
        index = next(i for i, t in enumerate(tensors) if t is stepper.noise.trajectory)
        lanes[index] = True
    if memory:
        known = memory_lanes or lanes_of_memory(stepper, carry)
        for place, lane in zip(memory, known, strict=True):
            lanes[place] = lane
    scalars = {i for i, t in enumerate(tensors) if id(t) in common}
    scalars |= {*step_size, *(i for i in range(carried, len(tensors)) if lanes[i])}
    drawn = {id(tensor) for tensor in order.tensors} if order is not None else set()
    ordered = tuple(i for i, tensor in enumerate(tensors) if id(tensor) in drawn)
    for place in ordered:
        lanes[place] = False
    unknown = {i for i in range(carried) if lanes[i]} - {*places["state"]}
    return Inputs(
        tensors,
        lanes,
        spec,
        carried,
        status[0],
        memory,
        step_size[0],
        frozenset(scalars),
        frozenset(unknown),
        ordered,
        order is not None and order.stride is not None,
    )


def _places(carry: Any) -> dict[str, tuple[int, ...]]:
    """Where each attribute of the carry lies among its leaves, which are in their order."""
    found, first = {}, 0
    for attribute in fields(carry):
        count = len(flattened(getattr(carry, attribute.name))[0])
        found[attribute.name] = tuple(range(first, first + count))
        first += count
    return found


def lanes_of_memory(stepper: Any, carry: Any) -> list[bool]:
    """Which memory of the control is one value per trajectory: it grows with the batch."""
    if not carry.memory:
        return []
    batch = carry.state.batch
    chosen = torch.zeros(ROWS, dtype=torch.int64)
    small, state = some_of(stepper, carry.state, chosen)
    # Only shapes are looked at.
    evaluation = mapped(
        lambda t: torch.zeros((ROWS, *t.shape[len(batch) :]), dtype=t.dtype), carry.evaluation
    )
    _, memory = small.control.start(Point(state, evaluation), small.flow)
    return [tensor.shape[:1] == (ROWS,) for tensor in memory]


def is_ours(thing: object) -> bool:
    """Whether a setting is of a class of this package."""
    return type(thing).__module__.partition(".")[0] == "flowopt"


def _parts(thing: object, batch: torch.Size) -> dict[str, Tensor]:
    """Tensors that a setting holds as attributes."""
    held = getattr(thing, "__dict__", {})
    found = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    # Ours hold one number, or one per trajectory; of others nobody knows which axis this is.
    unclear = [name for name, t in found.items() if t.shape == batch != () and not is_ours(thing)]
    if unclear:
        raise UnfitError(
            f"{unclear[0]!r} of {type(thing).__name__} has the shape of the batch, "
            f"{tuple(batch)}: one number per trajectory, or the same for all?"
        )
    return found


def _draws(stepper: Any) -> bool:
    """Whether steps take random numbers of ours."""
    return stepper.flow.noisy and isinstance(stepper.noise, PhiloxNoise)


def _surroundings(stepper: Any, batch: torch.Size) -> dict[str, Any]:
    """What a step reads besides the carry: settings that may change without a new program."""
    hyperparameters = getattr(stepper.flow, "hyperparameters", {})
    found: dict[str, Any] = {
        "control": _parts(stepper.control, batch),
        "scheme": _parts(stepper.scheme, batch),
        "hyperparameters": {
            name: value.expand(batch) if value.ndim else value
            for name, value in hyperparameters.items()
        },
        "ends": [t for t in (stepper.end_time, stepper.last_step) if t is not None],
    }
    if stepper.stop is not None:
        found["stop"] = _parts(stepper.stop.condition, batch)
    if _draws(stepper):
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


def some_of(stepper: Any, state: Any, chosen: Tensor) -> tuple[Any, Any]:
    """Stepper and state of some of the trajectories, as a batch of one dimension."""
    batch = state.batch

    def few(tensor: Tensor) -> Tensor:
        return tensor.reshape((-1, *tensor.shape[len(batch) :]))[chosen]

    settings = mapped(
        lambda t: few(t) if t.shape == batch != () else t, _surroundings(stepper, batch)
    )
    return rebound(stepper, settings), mapped(few, state)


def grown(few: Any, state: Any, lanes: Sequence[bool]) -> Any:
    """A carry for all trajectories, not filled in yet, from that of a few of them."""

    def empty(tensor: Tensor, lane: bool = True) -> Tensor:
        shape = (*state.batch, *tensor.shape[1:])
        return torch.empty(shape, dtype=tensor.dtype) if lane else tensor

    memory = tuple(empty(*pair) for pair in zip(few.memory, lanes, strict=True))
    rest = mapped(empty, replace(few, state=(), memory=()))
    return replace(rest, state=state, memory=memory)
