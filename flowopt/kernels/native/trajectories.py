"""The trajectory template: blocks of lanes, each taken through all steps of a launch in registers.

    i64 run(ptr pointers, ptr sizes, i64 first, i64 last, i64 trials, i64 count)

steps the trajectories of blocks first … last − 1 and returns how many of them still run, or a
negative number where there was no memory for what has many elements.
`pointers` holds the arguments, then the results of what is carried, then the shared values of
uniform carried slots, in the order of `Layout`. Arrays per trajectory are struct of arrays: element
e of trajectory i lies at e·count + i.
"""

from functools import partial
from typing import NamedTuple

from flowopt.kernels.loop import Carried, Loop
from flowopt.kernels.native.inner.elements import LINE, Elements, Sink
from flowopt.kernels.native.inner.rows import RowFunction
from flowopt.kernels.native.inner.sprint import MOST_OPERATIONS, PATIENCE, Sprint, registers_of
from flowopt.kernels.native.lanes import Lanes
from flowopt.kernels.native.machine import Machine
from flowopt.kernels.native.printer import Module
from flowopt.kernels.program import I64

# Vectors per block and the most operations of a step: several hide the latency of one another
# where registers allow.
COPIES = {4: 250, 3: 350, 2: 450}
# How a call gets memory for what has many elements, and gives it back.
MEMORY = {"aligned_alloc": "ptr @aligned_alloc(i64, i64)", "free": "void @free(ptr)"}
# What it returns where it gets none: the sum over all pieces of a launch is negative too.
NO_MEMORY = -(1 << 40)


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
        scratch: Bytes of memory that each call takes for itself.
    """

    text: str
    symbols: tuple[str, ...]
    lanes: int
    layout: Layout
    scratch: int = 0


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
    body = set(loop.program.needed([loop.goes, *(c.going for c in loop.carried)]))
    size = sum(i not in loop.uniform and i not in loop.constant for i in body)
    size += len(loop.rows.traced.program.nodes) if loop.rows else 0
    if copies is None:
        copies = next((n for n, most in COPIES.items() if size <= most), 1)
    width = machine.width
    module = Module(width, machine.vector_function, machine.prefix)
    template = _Template(loop, module, copies, body)
    if size <= MOST_OPERATIONS:
        template.add_laps()
    template.write()
    attributes = f'"prefer-vector-width"="{64 * width}" "min-legal-vector-width"="{64 * width}"'
    text = "\n".join(
        [
            template.rows.text(attributes) if template.rows else "",
            *module.declarations,
            "define i64 @run(ptr %pointers, ptr %sizes, i64 %first, i64 %last, i64 %trials, "
            f"i64 %count) nounwind {attributes} {{",
            *module.lines,
            "}",
            "",
        ]
    )
    scratch = template.elements.bytes
    return Source(text, tuple(module.symbols), width * copies, layout_of(loop), scratch)


class _Template:
    """Writes the function block by block; dominating blocks first."""

    def __init__(self, loop: Loop, module: Module, copies: int, body: set[int]):
        self.loop, self.module, self.copies, self.body = loop, module, copies, body
        self.width = module.width
        self.layout = layout_of(loop)
        self.lanes = Lanes(loop, module, copies)
        self.rows = RowFunction(loop.rows, module, copies) if loop.rows else None
        self.elements = Elements(loop, module, self.lanes, self.rows, body)
        self.sprint: Sprint | None = None

    def write(self) -> None:
        """All blocks."""
        self._entry()
        self._block()
        self._steps()
        self._event()
        self._next_step()
        self._finish()

    def add_laps(self) -> None:
        """Makes steps in laps, where they are made of vectors of numbers and may go on."""
        ends = self.loop.program.value(self.loop.goes) is not None
        if self.copies > 1 and self.width > 1 and not (ends or self.rows or self.elements.bytes):
            self.sprint = Sprint(self.loop, self.module, self.lanes, self._all_registers())

    def _entry(self) -> None:
        put, let = self.module.put, self.module.let
        self.module.label("entry")
        order = [("in", slot) for slot in range(self.layout.arguments)]
        order += [("out", slot) for slot in self.layout.carried]
        order += [("shared", slot) for slot in self.layout.shared]
        for place, (kind, slot) in enumerate(order):
            address = let(f"getelementptr ptr, ptr %pointers, i64 {place}")
            put(f"%{kind}{slot} = load ptr, ptr {address}")
        if self.elements.bytes:
            for name, declared in MEMORY.items():
                self.module.declare(declared)
                self.module.symbols[name] = None
            put(f"%scratch = call ptr @aligned_alloc(i64 {LINE}, i64 {self.elements.bytes})")
            put(f"%other = getelementptr i8, ptr %scratch, i64 {self.elements.buffer}")
            put("%no.memory = icmp eq ptr %scratch, null")
            put("br i1 %no.memory, label %failed, label %begin")
            self.module.label("failed")
            put(f"ret i64 {NO_MEMORY}")
            self.module.label("begin")
        if self.rows is not None:
            wide = self.module.type(I64, self.width)
            put(f"%starts = alloca {wide}, i64 {self.copies}")
        self.entered = self.module.block
        for carried in self._registers(uniform=True):
            value = self.lanes.load_scalar("shared", carried.slot, carried.place)
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
        put(f"%b = phi i64 [ %first, %{self.entered} ], [ %b.next, %done ]")
        put(f"%running = phi i64 [ 0, %{self.entered} ], [ %running.next, %done ]")
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
        self.elements.each(self._begin)
        rest = (i for i in self.lanes.used if i in self.loop.constant and not self._once(i))
        self.lanes.print_values(rest)
        self.prepared = self.module.block
        put(f"br label %{'ready' if self.sprint else 'step'}")
        if self.sprint:
            self.sprint.write(self.prepared)

    def _begin(self, carried: Carried, element: str, j: int) -> None:
        loaded = self.lanes.load(carried.slot, element, j)
        filled = self.lanes.fill(carried, loaded, f"%active0.{j}")
        self.elements.to_buffer(carried, "%scratch", element, j, filled)

    def _hand_on(self) -> None:
        """What ended trajectories have goes to the results as it is."""
        put, let = self.module.put, self.module.let
        for j in range(self.copies):
            rest = let(f"xor {self.lanes.bools} %active0.{j}, {self.lanes.all_true}")
            put(f"%rest.{j} = and {self.lanes.bools} {rest}, %valid.{j}")
        for carried in self._numbers():
            for j in range(self.copies):
                loaded = self.lanes.load(carried.slot, carried.place, j)
                put(f"%first{carried.start}.{j} = {self.lanes.same(carried.start, loaded, True)}")
                self._store_as_it_was(carried, loaded, j, "%rest")
        self.elements.each(partial(self._copied, mask="%rest"))

    def _store_as_it_was(self, carried: Carried, loaded: str, j: int, mask: str) -> None:
        """What lanes have that make no step; there are none where the result is one number."""
        if carried.slot not in self.loop.merged:
            self.lanes.store(carried, loaded, j, f"{mask}.{j}")

    def _copied(self, carried: Carried, element: str, j: int, mask: str) -> None:
        """An element from the arguments to the results."""
        loaded = self.lanes.load(carried.slot, element, j)
        self.lanes.store(carried, loaded, j, f"{mask}.{j}", element)

    def _steps(self) -> None:
        """One step of the lanes of a block."""
        put, let, sprint = self.module.put, self.module.let, self.sprint
        self.module.label("step")
        before, again = ("walk", "walked") if sprint else (self.prepared, "after")
        first = "%walk.k" if sprint else "0"
        put(f"%k = phi i64 [ {first}, %{before} ], [ %k.next, %{again} ]")
        if sprint:
            put(f"%until = phi i64 [ %run.k, %{before} ], [ %until.next, %{again} ]")
        if self.elements.bytes:
            put(f"%before = phi ptr [ %scratch, %{before} ], [ %after.state, %{again} ]")
            put(f"%after.state = phi ptr [ %other, %{before} ], [ %before, %{again} ]")
        active = "%ready.active" if sprint else "%active0"
        for j in range(self.copies):
            mask = self.lanes.bools
            put(f"%active.{j} = phi {mask} [ {active}.{j}, %{before} ], [ %on.{j}, %{again} ]")
        for carried in self._all_registers():
            self.lanes.names[carried.start] = []
            for name, kind, begin, stepped in registers_of(carried, self.lanes):
                begin = f"%walk.{name}" if sprint else begin
                put(f"%{name} = phi {kind} [ {begin}, %{before} ], [ {stepped}, %{again} ]")
                self.lanes.names[carried.start].append(f"%{name}")
        for start in [c.start for c in self._registers(uniform=True)]:
            self.lanes.spread_out(start)
        moving = [i for i in self.lanes.used if i in self.body and i not in self.loop.constant]
        self.elements.print_values(moving, self.elements.next_sinks())
        for j in range(self.copies):
            goes = self.lanes.of(self.loop.goes, j)
            ends = let(f"xor {self.lanes.bools} {goes}, {self.lanes.all_true}")
            put(f"%ended.{j} = and {self.lanes.bools} %active.{j}, {ends}")
        some = self.lanes.any_of([f"%ended.{j}" for j in range(self.copies)])
        self.stepped = self.module.block
        put(f"br i1 {some}, label %event, label %after")

    def _event(self) -> None:
        """Some lanes end: their results are stored, and they copy a lane that runs from now on."""
        put = self.module.put
        self.module.label("event")
        outer = dict(self.lanes.names), dict(self.lanes.splats)
        rest = [i for i in self.lanes.used if i not in self.body and i not in self.loop.constant]
        self.elements.print_values(rest, self._ending_sinks())
        for carried in self._numbers():
            for j in range(self.copies):
                self.lanes.store(carried, self.lanes.of(carried.ending, j), j, f"%ended.{j}")
        for j in range(self.copies):
            put(f"%left.{j} = xor {self.lanes.bools} %active.{j}, %ended.{j}")
        some = self.lanes.any_of([f"%left.{j}" for j in range(self.copies)])
        put(f"br i1 {some}, label %refill, label %done0")
        self.module.label("refill")
        if self.sprint:
            put(f"%patient = add i64 %k, {PATIENCE}")
        for carried in self._registers(uniform=False):
            for j in range(self.copies):
                filled = self.lanes.fill(carried, self.lanes.of(carried.going, j), f"%left.{j}")
                put(f"%fill{carried.start}.{j} = {self.lanes.same(carried.start, filled, True)}")
        self.elements.each(self._refill)
        self.refilled = self.module.block
        put("br label %after")
        self.lanes.names, self.lanes.splats = outer

    def _ending_sinks(self) -> list[Sink]:
        def sink(carried: Carried) -> Sink:
            def take(element: str, j: int, value: str) -> None:
                self.lanes.store(carried, value, j, f"%ended.{j}", element)

            return Sink(carried.ending, self.loop.program.nodes[carried.start].size, take)

        return [sink(carried) for carried in self.elements.carried]

    def _refill(self, carried: Carried, element: str, j: int) -> None:
        value = self.elements.from_buffer(carried, "%after.state", element, j)
        filled = self.lanes.fill(carried, value, f"%left.{j}")
        self.elements.to_buffer(carried, "%after.state", element, j, filled)

    def _next_step(self) -> None:
        put = self.module.put
        before, refilled = f"%{self.stepped}", f"%{self.refilled}"
        self.module.label("after")
        if self.sprint:
            put(f"%until.next = phi i64 [ %until, {before} ], [ %patient, {refilled} ]")
        for j in range(self.copies):
            kind = self.lanes.bools
            put(f"%on.{j} = phi {kind} [ %active.{j}, {before} ], [ %left.{j}, {refilled} ]")
        for carried in self._registers(uniform=False):
            start, kind = carried.start, self.lanes.vector(carried.start)
            for j in range(self.copies):
                going = self.lanes.of(carried.going, j)
                put(
                    f"%rnext{start}.{j} = phi {kind} [ {going}, {before} ], "
                    f"[ %fill{start}.{j}, {refilled} ]"
                )
        for carried in self._registers(uniform=True):
            value = self.lanes.one(carried.going)
            put(f"%unext{carried.start} = {self.lanes.same(carried.start, value)}")
        put("%k.next = add i64 %k, 1")
        put("%more = icmp slt i64 %k.next, %trials")
        if not self.sprint:
            put("br i1 %more, label %step, label %finish")
            return
        put("br i1 %more, label %walked, label %finish")
        self.module.label("walked")
        put("%walks = icmp slt i64 %k.next, %until.next")
        put("br i1 %walks, label %step, label %ready")

    def _finish(self) -> None:
        """End of a block: what runs is stored and counted."""
        put, let = self.module.put, self.module.let
        self.module.label("finish")
        for carried in self._numbers():
            for j in range(self.copies):
                value = self._final(carried, j)
                self.lanes.store(carried, value, j, f"%on.{j}")
        self.elements.each(self._stored)
        finished = self.module.block
        counted = self.lanes.count_of([f"%on.{j}" for j in range(self.copies)])
        put("br label %done")
        self.module.label("finish0")
        for carried in self._numbers():
            for j in range(self.copies):
                self._store_as_it_was(carried, f"%first{carried.start}.{j}", j, "%active0")
        self.elements.each(partial(self._copied, mask="%active0"))
        waited = self.module.block
        idle = self.lanes.count_of([f"%active0.{j}" for j in range(self.copies)])
        put("br label %done")
        self.module.label("done0")
        put("br label %done")
        self.module.label("done")
        put(f"%here = phi i64 [ {counted}, %{finished} ], [ {idle}, %{waited} ], [ 0, %done0 ]")
        put("%running.next = add i64 %running, %here")
        put("%b.next = add i64 %b, 1")
        put("%again = icmp slt i64 %b.next, %last")
        put("br i1 %again, label %block, label %exit")
        self.module.label("exit")
        result = let(f"phi i64 [ 0, %{self.entered} ], [ %running.next, %done ]")
        if self.elements.bytes:
            put("call void @free(ptr %scratch)")
        put(f"ret i64 {result}")

    def _stored(self, carried: Carried, element: str, j: int) -> None:
        value = self.elements.from_buffer(carried, "%after.state", element, j)
        self.lanes.store(carried, value, j, f"%on.{j}", element)

    def _final(self, carried: Carried, j: int) -> str:
        if self.lanes.number(carried.going) is not None:
            return self.lanes.of(carried.going, j)
        if carried.uniform:
            return self.module.splat(f"%unext{carried.start}", self.lanes.dtype(carried.start))
        return f"%rnext{carried.start}.{j}"

    def _registers(self, *, uniform: bool) -> list[Carried]:
        """What is kept in registers from step to step; the status is the mask of active lanes."""
        return [c for c in self._numbers() if c.uniform is uniform and c.slot != self.loop.status]

    def _all_registers(self) -> list[Carried]:
        return [*self._registers(uniform=True), *self._registers(uniform=False)]

    def _numbers(self) -> list[Carried]:
        """What is carried and is one number per trajectory."""
        return [c for c in self.loop.carried if self.loop.program.nodes[c.start].size == 1]
