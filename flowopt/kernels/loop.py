"""A step as the body of a loop: what a lane that goes on needs, and what one that ends leaves."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from flowopt.kernels.program import BOOL, I64, Program, UnfitError
from flowopt.kernels.tracing.traced import Argument, Rows, Traced

RUNNING = 0


@dataclass(frozen=True)
class Carried:
    """One number that a step hands to the next.

    Attributes:
        slot: Argument it comes from.
        element: Place in that argument; None where it stands for all elements.
        start: Value before the step.
        going: Value after it, for a trajectory that runs on.
        ending: Value after it, for a trajectory that ran and does not run on.
        uniform: Whether all trajectories that run have the same value.
    """

    slot: int
    element: int | None
    start: int
    going: int
    ending: int
    uniform: bool

    @property
    def place(self) -> int:
        """Its element, where it has one of its own."""
        assert self.element is not None
        return self.element


@dataclass(frozen=True)
class Loop:
    """A step, seen by the trajectories that run.

    Attributes:
        program: All values.
        arguments: What it reads.
        carried: Numbers that change from step to step, the status among them.
        goes: Whether the trajectory runs on after the step.
        status: Slot of the status.
        uniform: Values that are the same for all trajectories that run.
        constant: Values that are the same at all steps.
        rows: What is summed over rows of data.
        single: Slots that lie in memory as one number, which all trajectories have.
        merged: Slots whose results do, as one number is the result of all trajectories.
    """

    program: Program
    arguments: tuple[Argument, ...]
    carried: tuple[Carried, ...]
    goes: int
    status: int
    uniform: frozenset[int]
    constant: frozenset[int]
    rows: Rows | None = None
    single: frozenset[int] = frozenset()
    merged: frozenset[int] = frozenset()

    @property
    def alike(self) -> frozenset[int]:
        """Slots in which all trajectories that run on have the same numbers after a step."""
        different = {c.slot for c in self.carried if c.going not in self.uniform}
        return frozenset(c.slot for c in self.carried) - different

    def merging(self, slots: frozenset[int]) -> "Loop":
        """The same for trajectories that all run: what ends may have the numbers of what goes on.

        Args:
            slots: Where one number may be the result of all.
        """
        apart = {c.slot for c in self.carried if c.going != c.ending or c.element != 0}
        merged = (self.alike & slots) - apart
        return replace(self, merged=merged, single=self.single | merged)


def as_loop(
    traced: Traced, status: int, alike: Collection[int], single: frozenset[int] = frozenset()
) -> Loop:
    """Specialises a traced step to trajectories that run.

    A trajectory that has ended keeps what it had; its lane computes on and is not listened to. So
    in the loop status is RUNNING, and what only chooses between old and new state of an ended
    trajectory folds away. What all trajectories share at the start (step number, time, scalars of
    the equations) they share as long as they run, if it is computed from shared values only.

    Args:
        traced: Its outputs are the new values of its first inputs.
        status: Slot of the status.
        alike: Slots, one value per trajectory, that are equal at the start.
        single: Those of them that lie in memory as one number.

    Raises:
        UnfitError: The step changes an argument that all trajectories share.
    """
    program = traced.program
    places = _changing(traced)
    starts = [start for _, _, start, _ in places]
    (status_start,) = (s for s, p in zip(starts, places, strict=True) if p[0] == status)
    running = program.constant(RUNNING, I64)
    ending = program.rewrite([out for *_, out in places], {status_start: running})
    (status_end,) = (e for e, p in zip(ending, places, strict=True) if p[0] == status)
    goes = _narrowed(program, program.emit("eq", BOOL, status_end, running))
    facts = {v: program.constant(truth, BOOL) for v, truth in _facts(program, goes).items()}
    going = program.rewrite(ending, facts)
    candidates = {
        start
        for start, (slot, *_) in zip(starts, places, strict=True)
        if slot in alike or slot == status
    }
    while True:
        uniform = uniform_values(program, traced.arguments, alike, candidates, set(starts))
        kept = {s for s, g in zip(starts, going, strict=True) if s in candidates and g in uniform}
        if kept == candidates:
            break
        candidates = kept
    carried = tuple(
        Carried(slot, element, start, after, end, start in candidates)
        for (slot, element, *_), start, after, end in zip(
            places, starts, going, ending, strict=True
        )
    )
    constant = _independent(program, set(starts) - {status_start})
    arguments, rows = traced.arguments, traced.rows
    return Loop(program, arguments, carried, goes, status, uniform, constant, rows, single)


def _changing(traced: Traced) -> list[tuple[int, int | None, int, int]]:
    """Slot, element, old and new value of every number that a step may change."""
    places = []
    for slot, output in enumerate(traced.outputs):
        if output is None:
            continue
        if not traced.arguments[slot].lane:
            raise UnfitError("the step changes a tensor that all trajectories share")
        starts = traced.arguments[slot].values(traced.program, slot)
        if starts != list(output):
            elements = [traced.program.nodes[start].data[1] for start in starts]
            places += zip([slot] * len(starts), elements, starts, output, strict=True)
    return places


def _narrowed(program: Program, truth: int) -> int:
    """A conjunction with each part simplified by what those before it say."""
    pending, narrowed = [truth], program.constant(True, BOOL)
    while pending:
        value = pending.pop()
        node = program.nodes[value]
        if node.op == "and" and node.dtype == BOOL:
            pending += reversed(node.args)
            continue
        facts = _facts(program, narrowed)
        known = {v: program.constant(state, BOOL) for v, state in facts.items()}
        (value,) = program.rewrite([value], known)
        narrowed = program.emit("and", BOOL, narrowed, value)
    return narrowed


def _facts(program: Program, truth: int) -> dict[int, bool]:
    """What must hold if a bool is true."""
    facts: dict[int, bool] = {}
    pending = [(truth, True)]
    held: list[tuple[int, bool]] = []
    while pending:
        value, state = pending.pop()
        if value in facts or program.value(value) is not None:
            continue
        facts[value] = state
        node = program.nodes[value]
        if node.op == "not":
            pending.append((node.args[0], not state))
        elif (node.op, state) in (("and", True), ("or", False)):
            pending.extend((arg, state) for arg in node.args)
        elif node.op in ("and", "or"):
            held.append((value, state))
        if not pending:
            # One of two decides the other: not (a and b) with a gives not b.
            for junction, state in held:
                a, b = program.nodes[junction].args
                for known, other in ((a, b), (b, a)):
                    if facts.get(known) is (not state) and other not in facts:
                        pending.append((other, state))
    return facts


def uniform_values(
    program: Program,
    arguments: Sequence[Argument],
    alike: Collection[int],
    candidates: set[int],
    starts: set[int],
) -> frozenset[int]:
    """Values computed from shared arguments, constants and candidates only."""
    found: set[int] = set()
    for index, node in enumerate(program.nodes):
        if node.op == "input":
            slot = node.data[0]
            shared = not arguments[slot].lane or (slot in alike and index not in starts)
            if shared or index in candidates:
                found.add(index)
        elif node.size == 1 and all(arg in found for arg in node.args):
            found.add(index)
    return frozenset(found)


def _independent(program: Program, starts: set[int]) -> frozenset[int]:
    """Values that do not depend on any of some others, nor on what has many elements."""
    dependent: set[int] = set()
    for index, node in enumerate(program.nodes):
        wide = node.size > 1 or node.op == "rows"
        if wide or index in starts or any(arg in dependent for arg in node.args):
            dependent.add(index)
    return frozenset(range(len(program.nodes))) - dependent
