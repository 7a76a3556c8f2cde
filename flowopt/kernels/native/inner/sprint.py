"""Steps in laps: whether one of them ended a trajectory is seen where the lap ends.

To look at every step costs instructions, and registers for what the step began with. A lap only
moves numbers, and keeps what can not be undone: a sum that is not finite, a condition that did not
hold. If it turns out that a trajectory ended, the lap is made again from its start by single steps.
So results are those of single steps, which also make the last step of a launch.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flowopt.kernels.loop import Carried, Loop
from flowopt.kernels.native.lanes import Lanes
from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import F64, Program

# Steps of a lap, and single steps after one that ended a trajectory: others may end soon.
LAP, PATIENCE = 16, 128
# Operations of the longest step that gains by laps; a longer one does not fit into registers.
MOST_OPERATIONS = 100


class Register(NamedTuple):
    """A number, or a vector of them, that a step hands to the next.

    Attributes:
        name: How it is called, after the name of a block.
        kind: Its type.
        begin: Before the first step.
        stepped: After a single step.
    """

    name: str
    kind: str
    begin: str
    stepped: str


def registers_of(carried: Carried, lanes: Lanes) -> list[Register]:
    """The registers of what is carried: one where all trajectories share it."""
    start = carried.start
    if carried.uniform:
        kind = TYPES[lanes.dtype(start)]
        return [Register(f"u{start}", kind, f"%start{start}", f"%unext{start}")]
    kind, copies = lanes.vector(start), range(lanes.copies)
    return [
        Register(f"r{start}.{j}", kind, f"%begin{start}.{j}", f"%rnext{start}.{j}") for j in copies
    ]


class Sprint:
    """Prints the laps: blocks that follow a block `before` and lead to single steps by `walk`.

    Args:
        loop: The step.
        module: What is printed to.
        lanes: Its values.
        carried: What is kept in registers.
    """

    def __init__(self, loop: Loop, module: Module, lanes: Lanes, carried: Sequence[Carried]):
        """See the class."""
        self.loop, self.module, self.lanes, self.carried = loop, module, lanes, carried
        self.registers = [r for c in carried for r in registers_of(c, lanes)]
        self.copies, self.double = range(lanes.copies), module.type(F64, module.width)
        program, parts = loop.program, conjuncts(loop.program, loop.goes)
        self.common = [part for part in parts if part in loop.uniform]
        apart = [part for part in parts if part not in loop.uniform]
        self.sums = [found for part in apart if (found := summands(program, part))]
        self.conditions = [part for part in apart if not summands(program, part)]

    def write(self, before: str) -> None:
        """All blocks; `before` is the one that they follow."""
        outer = dict(self.lanes.names), dict(self.lanes.splats)
        self._ready(before)
        self._run()
        self._ahead()
        self.lanes.names, self.lanes.splats = outer

    def _phis(self, block: str, **sources: dict[str, str]) -> None:
        """Registers of a block, from those of others: block → name → value."""
        for name, kind, *_ in self.registers:
            pairs = ", ".join(f"[ {values[name]}, %{of} ]" for of, values in sources.items())
            self.module.put(f"%{block}.{name} = phi {kind} {pairs}")

    def _of(self, block: str) -> dict[str, str]:
        return {name: f"%{block}.{name}" for name, *_ in self.registers}

    def _ready(self, before: str) -> None:
        """Start of a lap."""
        put = self.module.put
        self.module.label("ready")
        put(f"%ready.k = phi i64 [ 0, %{before} ], [ %run.k, %well ], [ %k.next, %walked ]")
        for j in self.copies:
            put(
                f"%ready.active.{j} = phi {self.lanes.bools} [ %active0.{j}, %{before} ], "
                f"[ %ready.active.{j}, %well ], [ %on.{j}, %walked ]"
            )
        begin = {r.name: r.begin for r in self.registers}
        stepped = {r.name: r.stepped for r in self.registers}
        self._phis("ready", **{before: begin}, well=self._of("run"), walked=stepped)
        put(f"%lap = add i64 %ready.k, {LAP}")
        put("%most = sub i64 %trials, 1")
        put("%whole = icmp slt i64 %lap, %most")
        put("%lap.end = select i1 %whole, i64 %lap, i64 %most")
        put("br label %run")

    def _run(self) -> None:
        """Steps until the lap ends or the next one would end all trajectories."""
        put, let, lanes = self.module.put, self.module.let, self.lanes
        self.module.label("run")
        put("%run.k = phi i64 [ %ready.k, %ready ], [ %ran.k, %ran ]")
        at = len(self.module.lines)
        for carried in self.carried:
            lanes.names[carried.start] = [f"%run.{r.name}" for r in registers_of(carried, lanes)]
        for carried in self.carried:
            lanes.spread_out(carried.start)
        operands = [value for pair in self.sums for value in pair]
        ends = [*(c.going for c in self.carried), *operands, *self.conditions, *self.common]
        moving = [v for v in self.loop.program.needed(ends) if v not in self.loop.constant]
        lanes.print_values(v for v in moving if v in self.loop.uniform)
        more = let("icmp slt i64 %run.k, %lap.end")
        for condition in self.common:
            more = let(f"and i1 {more}, {lanes.one(condition)}")
        put(f"br i1 {more}, label %ran, label %ahead")
        self.module.label("ran")
        self._print(moving)
        going = {
            register.name: lanes.one(carried.going)
            if carried.uniform
            else lanes.of(carried.going, j)
            for carried in self.carried
            for j, register in enumerate(registers_of(carried, lanes))
        }
        self._watch()
        put("%ran.k = add i64 %run.k, 1")
        put("br label %run")
        # What they come from is named only now.
        lines, self.module.lines = self.module.lines, []
        self._phis("run", ready=self._of("ready"), ran=going)
        one, true = self.module.literal(1.0, F64, self.module.width), lanes.all_true
        for j in self.copies:
            for kept, kind, begin in (("sum", self.double, one), ("good", lanes.bools, true)):
                put(f"%{kept}.{j} = phi {kind} [ {begin}, %ready ], [ %{kept}.next.{j}, %ran ]")
        self.module.lines = lines[:at] + self.module.lines + lines[at:]

    def _print(self, moving: Sequence[int]) -> None:
        """One vector after the other: a small step has more of them than registers bear at once."""
        lanes, nodes = self.lanes, self.loop.program.nodes
        moving = [v for v in moving if v not in lanes.names and nodes[v].op != "constant"]
        lanes.names |= {v: [""] * lanes.copies for v in moving}
        for j in self.copies:
            for v in moving:
                lanes.names[v][j] = lanes.of_lane(v, j)

    def _watch(self) -> None:
        """Keeps what is not finite, or no longer holds, to the end of the lap.

        Where the sum of two numbers is not finite, their product is not: one is infinite or NaN, or
        the sum overflows; then the smaller is half a unit in the last place of the larger, at
        least, and the product overflows too. The converse need not hold: it costs time alone.
        """
        put, let, lanes, double = self.module.put, self.module.let, self.lanes, self.double
        name = f"llvm.fmuladd.v{self.module.width}f64"
        self.module.declare(f"{double} @{name}({double}, {double}, {double})")
        for j in self.copies:
            total, good = f"%sum.{j}", f"%good.{j}"
            for pair in self.sums:
                a, b = (lanes.of(value, j) for value in pair)
                total = let(f"call {double} @{name}({double} {a}, {double} {b}, {double} {total})")
            for condition in self.conditions:
                good = let(f"and {lanes.bools} {good}, {lanes.of(condition, j)}")
            put(f"%sum.next.{j} = select i1 true, {double} {total}, {double} {total}")
            put(f"%good.next.{j} = select i1 true, {lanes.bools} {good}, {lanes.bools} {good}")

    def _ahead(self) -> None:
        """End of a lap: another one, or single steps from its end or from its start."""
        put, let, lanes = self.module.put, self.module.let, self.lanes
        zero = self.module.literal(0.0, F64, self.module.width)
        self.module.label("ahead")
        for j in self.copies:
            # Zero unless it is infinite or NaN.
            nought = let(f"fsub {self.double} %sum.{j}, %sum.{j}")
            finite = let(f"fcmp oeq {self.double} {nought}, {zero}")
            held = let(f"and {lanes.bools} {finite}, %good.{j}")
            failed = let(f"xor {lanes.bools} {held}, {lanes.all_true}")
            put(f"%failed.{j} = and {lanes.bools} {failed}, %ready.active.{j}")
        some = lanes.any_of([f"%failed.{j}" for j in self.copies])
        put(f"br i1 {some}, label %walk, label %well")
        self.module.label("well")
        put("%through = icmp eq i64 %run.k, %lap")
        put("br i1 %through, label %ready, label %walk")
        self.module.label("walk")
        put("%walk.k = phi i64 [ %ready.k, %ahead ], [ %run.k, %well ]")
        self._phis("walk", ahead=self._of("ready"), well=self._of("run"))
        put("br label %step")


def conjuncts(program: Program, truth: int) -> list[int]:
    """What a bool is the conjunction of."""
    node = program.nodes[truth]
    if node.op != "and":
        return [truth]
    return [part for arg in node.args for part in conjuncts(program, arg)]


def summands(program: Program, truth: int) -> tuple[int, int] | None:
    """The two numbers of whose sum a bool says that it is finite, by x − x = 0."""
    node = program.nodes[truth]
    if node.op != "eq":
        return None
    for difference, zero in (node.args, node.args[::-1]):
        found = program.nodes[difference]
        if found.op == "sub" and found.args[0] == found.args[1] and program.value(zero) == 0:
            total = program.nodes[found.args[0]]
            if total.op == "add" and total.dtype == F64:
                return total.args[0], total.args[1]
    return None
