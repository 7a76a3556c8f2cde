"""The trajectory template: blocks of lanes, each taken through all steps of a launch in registers.

    i64 run(ptr pointers, ptr sizes, i64 first, i64 last, i64 trials, i64 count)

steps the trajectories of blocks first … last − 1 and returns how many of them still run.
`pointers` holds the arguments, then the results of what is carried, then the shared values of
uniform carried slots, in the order of `Layout`. Arrays per trajectory are struct of arrays: element
e of trajectory i lies at e·count + i.
"""

from typing import NamedTuple

from flowopt.kernels.loop import Carried, Loop
from flowopt.kernels.native.lanes import Lanes
from flowopt.kernels.native.machine import Machine
from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import I64

# Vectors per block and the most operations of a step: several hide the latency of one another
# where registers allow.
COPIES = {4: 250, 3: 350, 2: 450}


class Layout(NamedTuple):
    """Order of the pointers of a kernel.

    Attributes:
        arguments: How many arguments come first.
        carried: Slots whose results follow.
        shared: Carried slots whose common value at the start follows.
    """

    arguments: int
    carried: tuple[int, ...]
    shared: tuple[int, ...]


class Source(NamedTuple):
    """A printed kernel.

    Attributes:
        text: LLVM IR.
        symbols: External functions it calls.
        lanes: Trajectories per block.
        layout: Order of its pointers.
    """

    text: str
    symbols: tuple[str, ...]
    lanes: int
    layout: Layout


def layout_of(loop: Loop) -> Layout:
    """Order of the pointers of the kernel of a loop."""
    carried = tuple(dict.fromkeys(c.slot for c in loop.carried))
    shared = tuple(
        dict.fromkeys(c.slot for c in loop.carried if c.uniform and c.slot != loop.status)
    )
    return Layout(len(loop.arguments), carried, shared)


def print_trajectories(loop: Loop, machine: Machine, copies: int | None = None) -> Source:
    """LLVM IR of the kernel of a loop.

    Args:
        loop: The step.
        machine: Whose vectors and functions are used.
        copies: Vectors per block; by default by the size of the step.
    """
    body = loop.program.needed([loop.goes, *(c.going for c in loop.carried)])
    if copies is None:
        size = sum(i not in loop.uniform and i not in loop.constant for i in body)
        copies = next((n for n, most in COPIES.items() if size <= most), 1)
    width = machine.width
    module = Module(width, machine.vector_function, machine.prefix)
    _Template(loop, module, copies).write(set(body))
    attributes = f'"prefer-vector-width"="{64 * width}" "min-legal-vector-width"="{64 * width}"'
    text = "\n".join(
        [
            *module.declarations,
            "define i64 @run(ptr %pointers, ptr %sizes, i64 %first, i64 %last, i64 %trials, "
            f"i64 %count) nounwind {attributes} {{",
            *module.lines,
            "}",
            "",
        ]
    )
    return Source(text, tuple(module.symbols), width * copies, layout_of(loop))


class _Template:
    """Writes the function block by block; dominating blocks first."""

    def __init__(self, loop: Loop, module: Module, copies: int):
        self.loop, self.module, self.copies = loop, module, copies
        self.width = module.width
        self.layout = layout_of(loop)
        self.lanes = Lanes(loop, module, copies)

    def write(self, body: set[int]) -> None:
        """All blocks."""
        self._entry()
        self._block()
        self._steps(body)
        self._event(body)
        self._next_step()
        self._finish()

    def _entry(self) -> None:
        put, let = self.module.put, self.module.let
        self.module.label("entry")
        order = [("in", slot) for slot in range(self.layout.arguments)]
        order += [("out", slot) for slot in self.layout.carried]
        order += [("shared", slot) for slot in self.layout.shared]
        for place, (kind, slot) in enumerate(order):
            address = let(f"getelementptr ptr, ptr %pointers, i64 {place}")
            put(f"%{kind}{slot} = load ptr, ptr {address}")
        for carried in self._registers(uniform=True):
            value = self.lanes.load_scalar("shared", carried.slot, carried.element)
            put(f"%start{carried.start} = {self.lanes.same(carried.start, value)}")
        self.lanes.print_values(i for i in self.lanes.used if self._once(i))
        put("%some = icmp slt i64 %first, %last")
        put("br i1 %some, label %block, label %exit")

    def _once(self, index: int) -> bool:
        return index in self.loop.uniform and index in self.loop.constant

    def _block(self) -> None:
        """Start of a block: loads, and what does not change from step to step."""
        put, let = self.module.put, self.module.let
        self.module.label("block")
        put("%b = phi i64 [ %first, %entry ], [ %b.next, %done ]")
        put("%running = phi i64 [ 0, %entry ], [ %running.next, %done ]")
        put(f"%base = mul i64 %b, {self.width * self.copies}")
        bools, wide = self.lanes.bools, self.module.type(I64, self.width)
        count = self.module.splat("%count", I64)
        for j in range(self.copies):
            put(f"%lane.{j} = add i64 %base, {j * self.width}")
            numbers = ", ".join(f"i64 {lane}" for lane in range(self.width))
            first = self.module.splat(f"%lane.{j}", I64)
            indices = let(f"add {wide} {first}, <{numbers}>")
            put(f"%valid.{j} = icmp ult {wide} {indices}, {count}")
            status = self.lanes.load(self.loop.status, 0, j)
            zero = self.module.literal(0, I64, self.width)
            runs = let(f"icmp eq {wide} {status}, {zero}")
            put(f"%active0.{j} = and {bools} %valid.{j}, {runs}")
        self._hand_on()
        some = self.lanes.any_of([f"%active0.{j}" for j in range(self.copies)])
        put("%busy = icmp sgt i64 %trials, 0")
        put(f"%go = and i1 %busy, {some}")
        put("br i1 %go, label %prepare, label %finish0")
        self.module.label("prepare")
        for carried in self._registers(uniform=False):
            for j in range(self.copies):
                loaded = f"%first{carried.start}.{j}"
                filled = self.lanes.fill(carried, loaded, f"%active0.{j}")
                put(f"%begin{carried.start}.{j} = {self.lanes.same(carried.start, filled, True)}")
        rest = (i for i in self.lanes.used if i in self.loop.constant and not self._once(i))
        self.lanes.print_values(rest)
        put("br label %step")

    def _hand_on(self) -> None:
        """What ended trajectories have goes to the results as it is."""
        put, let = self.module.put, self.module.let
        for carried in self.loop.carried:
            for j in range(self.copies):
                loaded = self.lanes.load(carried.slot, carried.element, j)
                put(f"%first{carried.start}.{j} = {self.lanes.same(carried.start, loaded, True)}")
                ended = let(f"xor {self.lanes.bools} %active0.{j}, {self.lanes.all_true}")
                ended = let(f"and {self.lanes.bools} {ended}, %valid.{j}")
                self.lanes.store(carried, loaded, j, ended)

    def _steps(self, body: set[int]) -> None:
        """One step of the lanes of a block."""
        put, let = self.module.put, self.module.let
        self.module.label("step")
        put("%k = phi i64 [ 0, %prepare ], [ %k.next, %after ]")
        for j in range(self.copies):
            mask = self.lanes.bools
            put(f"%active.{j} = phi {mask} [ %active0.{j}, %prepare ], [ %on.{j}, %after ]")
        for carried in self._registers(uniform=True):
            start, kind = carried.start, TYPES[self.lanes.dtype(carried.start)]
            put(f"%u{start} = phi {kind} [ %start{start}, %prepare ], [ %unext{start}, %after ]")
            self.lanes.names[start] = [f"%u{start}"]
        for carried in self._registers(uniform=False):
            start, kind = carried.start, self.lanes.vector(carried.start)
            for j in range(self.copies):
                put(
                    f"%r{start}.{j} = phi {kind} [ %begin{start}.{j}, %prepare ], "
                    f"[ %rnext{start}.{j}, %after ]"
                )
            self.lanes.names[start] = [f"%r{start}.{j}" for j in range(self.copies)]
        for start in [c.start for c in self._registers(uniform=True)]:
            self.lanes.spread_out(start)
        self.lanes.print_values(
            i for i in self.lanes.used if i in body and i not in self.loop.constant
        )
        for j in range(self.copies):
            goes = self.lanes.of(self.loop.goes, j)
            ends = let(f"xor {self.lanes.bools} {goes}, {self.lanes.all_true}")
            put(f"%ended.{j} = and {self.lanes.bools} %active.{j}, {ends}")
        some = self.lanes.any_of([f"%ended.{j}" for j in range(self.copies)])
        put(f"br i1 {some}, label %event, label %after")

    def _event(self, body: set[int]) -> None:
        """Some lanes end: their results are stored, and they copy a lane that runs from now on."""
        put = self.module.put
        self.module.label("event")
        outer = dict(self.lanes.names), dict(self.lanes.splats)
        rest = (i for i in self.lanes.used if i not in body and i not in self.loop.constant)
        self.lanes.print_values(rest)
        for carried in self.loop.carried:
            for j in range(self.copies):
                self.lanes.store(carried, self.lanes.of(carried.ending, j), j, f"%ended.{j}")
        for j in range(self.copies):
            put(f"%left.{j} = xor {self.lanes.bools} %active.{j}, %ended.{j}")
        some = self.lanes.any_of([f"%left.{j}" for j in range(self.copies)])
        put(f"br i1 {some}, label %refill, label %done0")
        self.module.label("refill")
        for carried in self._registers(uniform=False):
            for j in range(self.copies):
                filled = self.lanes.fill(carried, self.lanes.of(carried.going, j), f"%left.{j}")
                put(f"%fill{carried.start}.{j} = {self.lanes.same(carried.start, filled, True)}")
        put("br label %after")
        self.lanes.names, self.lanes.splats = outer

    def _next_step(self) -> None:
        put = self.module.put
        self.module.label("after")
        for j in range(self.copies):
            put(f"%on.{j} = phi {self.lanes.bools} [ %active.{j}, %step ], [ %left.{j}, %refill ]")
        for carried in self._registers(uniform=False):
            start, kind = carried.start, self.lanes.vector(carried.start)
            for j in range(self.copies):
                going = self.lanes.of(carried.going, j)
                put(
                    f"%rnext{start}.{j} = phi {kind} [ {going}, %step ], "
                    f"[ %fill{start}.{j}, %refill ]"
                )
        for carried in self._registers(uniform=True):
            value = self.lanes.one(carried.going)
            put(f"%unext{carried.start} = {self.lanes.same(carried.start, value)}")
        put("%k.next = add i64 %k, 1")
        put("%more = icmp slt i64 %k.next, %trials")
        put("br i1 %more, label %step, label %finish")

    def _finish(self) -> None:
        """End of a block: what runs is stored and counted."""
        put, let = self.module.put, self.module.let
        self.module.label("finish")
        for carried in self.loop.carried:
            for j in range(self.copies):
                value = self._final(carried, j)
                self.lanes.store(carried, value, j, f"%on.{j}")
        counted = self.lanes.count_of([f"%on.{j}" for j in range(self.copies)])
        put("br label %done")
        self.module.label("finish0")
        for carried in self.loop.carried:
            for j in range(self.copies):
                self.lanes.store(carried, f"%first{carried.start}.{j}", j, f"%active0.{j}")
        idle = self.lanes.count_of([f"%active0.{j}" for j in range(self.copies)])
        put("br label %done")
        self.module.label("done0")
        put("br label %done")
        self.module.label("done")
        put(f"%here = phi i64 [ {counted}, %finish ], [ {idle}, %finish0 ], [ 0, %done0 ]")
        put("%running.next = add i64 %running, %here")
        put("%b.next = add i64 %b, 1")
        put("%again = icmp slt i64 %b.next, %last")
        put("br i1 %again, label %block, label %exit")
        self.module.label("exit")
        result = let("phi i64 [ 0, %entry ], [ %running.next, %done ]")
        put(f"ret i64 {result}")

    def _final(self, carried: Carried, j: int) -> str:
        if self.lanes.number(carried.going) is not None:
            return self.lanes.of(carried.going, j)
        if carried.uniform:
            return self.module.splat(f"%unext{carried.start}", self.lanes.dtype(carried.start))
        return f"%rnext{carried.start}.{j}"

    def _registers(self, *, uniform: bool) -> list[Carried]:
        """What is kept in registers from step to step; the status is the mask of active lanes."""
        return [c for c in self.loop.carried if c.uniform is uniform and c.slot != self.loop.status]
