"""A stepper's `advance` as a function of tensors: what it is made of, and a trace of it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.core.curvature.solving import solving
from flowopt.kernels.inputs import Form, Inputs, flattened, is_ours, rebound, unflattened
from flowopt.kernels.loop import as_loop
from flowopt.kernels.native.build import Code, load
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.native.trajectories import Source, print_trajectories
from flowopt.kernels.program import UnfitError
from flowopt.kernels.tracing.guard import GuardedOracle
from flowopt.kernels.tracing.rows import trace_row
from flowopt.kernels.tracing.trace import trace
from flowopt.kernels.tracing.traced import Rows, Traced

MOST_TRACES = 64
# Of the program of a step that is built in much less than the time of a launch.
MOST_NODES = 250


def started(stepper: Any, state: Any, sample: Tensor | None = None) -> Any:
    """The first carry of a state."""
    view = solving(stepper.oracle, stepper.flow.damping)
    return stepper.start(state, view.evaluate(state.position, sample))


def begun(stepper: Any, carry: Any, order: list[Tensor] | None) -> Any:
    """The first carry of a state; minibatches are named by their place in the order."""
    return started(stepper, carry.state, _named(order)(first_drawn(stepper, carry.state)))


def advanced(stepper: Any, carry: Any, order: list[Tensor] | None) -> Any:
    """The carry after a trial; minibatches are named by their place in the order."""
    return tried(stepper, carry, _named(order))


def _named(order: list[Tensor] | None) -> Callable[[Tensor], Tensor | None]:
    return lambda step: None if order is None else step - order[1]


def tried(stepper: Any, carry: Any, sample_of: Callable[[Tensor], Tensor | None]) -> Any:
    """The carry after a trial.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        carry: Before it.
        sample_of: From steps, (*batch,), to their minibatches.
    """
    step = carry.state.step
    if not stepper.sampled:
        return stepper.advance(carry, sample_of(step), sample_of(step + 1))
    sample = sample_of(step)
    after, _ = stepper.attempt(carry, sample, sample)
    following = after.state.step
    return stepper.renewed(after, following != step, sample_of(following))


def first_drawn(stepper: Any, state: Any) -> Tensor:
    """Step whose minibatch a state that starts a run is evaluated on."""
    step = state.step
    if stepper.sampled:
        return step
    # A scheme that ended with a gradient had it on the minibatch of the step before.
    behind = stepper.scheme.ends_with_gradient(stepper.flow)
    return torch.clamp(step - 1, min=0) if behind else step


def flat_function(
    function: Callable[[Any, Any, Any], Any], stepper: Any, spec: Form
) -> Callable[..., list[Tensor]]:
    """A function from carry to carry as one of flat tensors."""

    def flat(*tensors: Tensor) -> list[Tensor]:
        carry, surroundings = unflattened(tensors, spec)
        moved = function(rebound(stepper, surroundings), carry, surroundings.get("order"))
        results, after = flattened((moved, surroundings))
        if after != spec:
            raise UnfitError("a step changes which numbers are carried on")
        results = results[: len(flattened(moved)[0])]
        if any(a.numel() != b.numel() for a, b in zip(results, tensors, strict=False)):
            raise UnfitError(
                "a step of one trajectory gives numbers for several: does the stop condition or "
                "the control close over a tensor with one number per trajectory?"
            )
        return results

    return flat


def frozen(thing: object, kept: list) -> Hashable:
    """A key of a setting without its tensors; what is not ours is keyed by identity."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, tuple):
        return (type(thing), *(frozen(item, kept) for item in thing))
    if isinstance(thing, dict):
        return tuple((key, frozen(value, kept)) for key, value in sorted(thing.items()))
    held = getattr(thing, "__dict__", None)
    if is_ours(thing) and isinstance(held, dict):
        items = ((name, v) for name, v in sorted(held.items()) if not isinstance(v, Tensor))
        return (type(thing), *((name, frozen(value, kept)) for name, value in items))
    return identity(thing, kept)


def identity(thing: object, kept: list) -> Hashable:
    """A key of an object that is kept, so that no other takes its place."""
    kept.append(thing)
    return (type(thing), id(thing))


class Kernel(NamedTuple):
    """Native code of a traced function.

    Attributes:
        source: As printed.
        code: As loaded.
        alike: Slots that are equal for all trajectories that run on.
        merged: Slots whose results are one number in memory.
    """

    source: Source
    code: Code
    alike: frozenset[int]
    merged: frozenset[int]


class Kind(NamedTuple):
    """What a kernel is made for.

    Attributes:
        alike: Slots, one value per trajectory, that are equal for all that run.
        single: Those of them that lie in memory as one number.
        merging: Slots whose results may do so, as all trajectories run.
    """

    alike: frozenset[int]
    single: frozenset[int]
    merging: frozenset[int] = frozenset()


@dataclass
class Part:
    """A trace with the kernels that were made from it.

    Attributes:
        traced: The program.
        copies: Vectors per block; by default as many as make steps fast.
        compiled: Kernels by what they are made for.
    """

    traced: Traced
    copies: int | None = None
    compiled: dict[Kind, Kernel] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether it is built so fast that another kernel for the first launch is worth it."""
        return len(self.traced.program.nodes) <= MOST_NODES

    def kernel(self, status: int, kind: Kind) -> Kernel:
        """The kernel for trajectories that have the values of some slots in common."""
        if kind not in self.compiled:
            machine = this_machine()
            loop = as_loop(self.traced, status, kind.alike, kind.single).merging(kind.merging)
            source = print_trajectories(loop, machine, self.copies)
            code = load(source.text, source.symbols, machine)
            self.compiled[kind] = Kernel(source, code, loop.alike, loop.merged)
        return self.compiled[kind]

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether shapes are as traced and tensors that served as indices have not changed."""
        arguments, unrolled = self.traced.arguments, self.traced.unrolled
        held = [*tensors, *self.traced.captured]
        for slot, (argument, tensor) in enumerate(zip(arguments, held, strict=True)):
            shape = tuple(tensor.shape)
            given = slot < len(tensors) and slot not in unrolled
            table = given and len(shape) == len(argument.shape) == 1
            fixed = argument.lane or table or shape == argument.shape
            if tensor.dtype != argument.dtype or not fixed:
                return False
        return all(
            torch.equal(self.traced.captured[place], contents)
            for place, contents in self.traced.baked.items()
        )


@dataclass
class TracedStep:
    """How trajectories start and step.

    Attributes:
        step: From a carry to the next.
        start: From a state to its carry; None where that is no scalar program.
        kept: Objects by whose identity it is known, kept so that no other takes their place.
        checked: Kernels that have been compared with eager torch over a whole step, by what their
            trajectories have in common.
    """

    step: Part
    start: Part | None
    kept: list
    checked: set[frozenset[int]] = field(default_factory=set)

    @cached_property
    def tables(self) -> list[Tensor]:
        """Tensors closed over that are looked up at computed places."""
        traced = self.step.traced
        given = len(traced.arguments) - len(traced.captured)
        slots = _looked_up(traced)
        if traced.rows is not None:
            inside = traced.rows.traced
            first = len(inside.arguments) - len(traced.rows.slots)
            slots |= {traced.rows.slots[slot - first] for slot in _looked_up(inside)}
        return [traced.captured[slot - given] for slot in sorted(slots) if slot >= given]

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether it is right for these inputs."""
        return all(part.fits(tensors) for part in (self.step, self.start) if part is not None)


def _looked_up(traced: Traced) -> set[int]:
    return {node.data for node in traced.program.nodes if node.op == "gather"}


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
    # Each a tensor of its own: one that stands for two settings, or that the loss closes over too,
    # would be one argument of the program, also where later runs have two.
    samples = [
        tensor.reshape((-1, *inputs.rest(place)))[:1] if lane else tensor.clone()
        for place, (tensor, lane) in enumerate(zip(inputs.tensors, inputs.lanes, strict=True))
    ]
    also = ""
    try:
        if hasattr(stepper.oracle, "evaluate_rows"):
            carry, _ = unflattened(samples, inputs.spec)
            rows, oracle = trace_row(stepper.oracle, carry.state.position, inputs.apart)
            rows = replace(rows, order=inputs.order)
            return _parts(replace(stepper, oracle=oracle), inputs, samples, kept, rows)
    except UnfitError as error:
        also = f"; row by row: {error}"
    try:
        if inputs.order:
            raise UnfitError("the problem draws minibatches")
        whole = replace(stepper, oracle=GuardedOracle(stepper.oracle))
        return _parts(whole, inputs, samples, kept, None)
    except UnfitError as error:
        refusal = UnfitError(f"{error}{also}")
        refusal.kept = kept
        return refusal


def _parts(
    stepper: Any, inputs: Inputs, samples: list[Tensor], kept: list, rows: Rows | None
) -> TracedStep:
    """The traces of a step and of a start."""

    def part(function: Callable[[Any, Any, Any], Any], copies: int | None = None) -> Part:
        flat = flat_function(function, stepper, inputs.spec)
        return Part(trace(flat, samples, inputs.lanes, rows), copies)

    step = part(advanced)
    try:
        # It runs once: what it costs is its compilation.
        start = part(begun, copies=1)
    except UnfitError:
        # A control that tabulates what lies ahead starts in eager torch.
        start = None
    return TracedStep(step, start, kept)


def _key(stepper: Any, inputs: Inputs, kept: list) -> Hashable:
    flow, oracle, stop = stepper.flow, stepper.oracle, stepper.stop
    what = getattr(flow, "definition", None)
    if what is None:
        what = identity(flow, kept)
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
