"""Loss and gradient summed over rows of data, as a function that the step calls.

    void rows(ptr pointers, ptr sizes, ptr sums, ptr order, i64 stride, ptr starts, i64 count,
              ptr in0, ptr in1, …)

`in0`, `in1`, … are the leaves of θ and `sums` takes the results, all for one block of lanes: vector
j of element e at e·copies + j. `order` names the rows of a minibatch; it is null for all rows.
Where lanes see different minibatches, that of lane l begins `starts`[l] numbers further, and its
rows are `stride` numbers from one another.
"""

import math
from collections.abc import Collection
from dataclasses import replace

from flowopt.kernels.loop import Loop, uniform_values
from flowopt.kernels.native.lanes import BYTES, STORAGE, Lanes, suffix
from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import I64
from flowopt.kernels.tracing.traced import Rows


class RowFunction:
    """Prints the function.

    Args:
        rows: What it computes.
        module: Of which declarations and symbols are shared.
        copies: Vectors per block.
    """

    def __init__(self, rows: Rows, module: Module, copies: int):
        """See the class."""
        self.rows, self.copies = rows, copies
        self.traced = rows.traced
        self.module = replace(module, lines=[])
        self.width = module.width
        self.leaves = len(self.traced.outputs) - 1
        program, arguments = self.traced.program, self.traced.arguments
        self.results = rows.results()
        roots = [value for values in self.results for value in values]
        uniform = uniform_values(program, arguments, frozenset(), set(), set())
        loop = Loop(program, arguments, (), roots[0], 0, uniform, frozenset())
        tables = range(self.leaves, self.leaves + len(rows.tables)) if rows.apart else range(0)
        self.lanes = _RowLanes(loop, self.module, copies, roots, tables)
        self.offsets = self._offsets()

    @property
    def bytes(self) -> int:
        """Length of the sums."""
        return self.offsets[-1]

    def vector(self, place: int) -> str:
        """Type of a vector of a result."""
        return self.module.type(self._dtype(place), self.width)

    def text(self, attributes: str) -> str:
        """The function in LLVM IR."""
        places = ", ".join(f"ptr %in{place}" for place in range(self.leaves))
        self._entry()
        self._body()
        self._end()
        head = (
            "define internal void @rows(ptr %pointers, ptr %sizes, ptr %sums, ptr %order, "
            f"i64 %stride, ptr %starts, i64 %count, {places}) noinline nounwind {attributes} {{"
        )
        return "\n".join([head, *self.module.lines, "}"])

    def count(self, module: Module) -> str:
        """How many rows there are."""
        first = module.let(f"getelementptr i64, ptr %sizes, i64 {self.rows.slots[0]}")
        numbers = module.let(f"load i64, ptr {first}")
        shape = self.traced.arguments[self.leaves].shape
        return module.let(f"sdiv i64 {numbers}, {math.prod(shape)}")

    def _dtype(self, place: int) -> str:
        return self.traced.program.nodes[self.results[place][0]].dtype

    def _offsets(self) -> list[int]:
        ends = [0]
        for place, values in enumerate(self.results):
            size = len(values) * self.copies * self.width * BYTES[self._dtype(place)]
            ends.append(ends[-1] + -(-size // 64) * 64)
        return ends

    def _sum(self, place: int) -> str:
        return f"%sum{place}"

    def _entry(self) -> None:
        put, let = self.module.put, self.module.let
        self.module.label("entry")
        for place, outer in enumerate(self.rows.slots, start=self.leaves):
            address = let(f"getelementptr ptr, ptr %pointers, i64 {outer}")
            table = place < self.leaves + len(self.rows.tables)
            put(f"%{'table' if table else 'in'}{place} = load ptr, ptr {address}")
        for place, values in enumerate(self.results):
            put(f"{self._sum(place)} = getelementptr i8, ptr %sums, i64 {self.offsets[place]}")
            kind, zero = self.vector(place), self.module.literal(0, self._dtype(place), self.width)

            def clear(i: str, place=place, kind=kind, zero=zero) -> None:
                address = let(f"getelementptr {kind}, ptr {self._sum(place)}, i64 {i}")
                put(f"store {kind} {zero}, ptr {address}")

            self.module.repeat(len(values) * self.copies, clear)
        put("%all = icmp eq ptr %order, null")
        put("%some = icmp sgt i64 %count, 0")
        put("br i1 %some, label %row, label %end")
        self.first = self.module.block

    def _body(self) -> None:
        """One row: each number of the result is added as soon as it is known."""
        put = self.module.put
        self.module.label("row")
        put(f"%r = phi i64 [ 0, %{self.first} ], [ %r.next, %counted ]")
        if self.rows.apart:
            self._own_rows()
        else:
            self._shared_row()
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, values in enumerate(self.results):
            for element, value in enumerate(values):
                wanted.setdefault(value, []).append((place, element))
        for index in self.lanes.used:
            self.lanes.print_values([index])
            for place, element in wanted.get(index, ()):
                self._add(place, element, index)
        put("%r.next = add i64 %r, 1")
        put("%more = icmp slt i64 %r.next, %count")
        put("br i1 %more, label %row, label %end")

    def _shared_row(self) -> None:
        """Where the row of all lanes lies."""
        put, let = self.module.put, self.module.let
        put("br i1 %all, label %counted, label %drawn")
        self.module.label("drawn")
        place = let("getelementptr i64, ptr %order, i64 %r")
        put(f"%named = load i64, ptr {place}")
        put("br label %counted")
        self.module.label("counted")
        put("%number = phi i64 [ %r, %row ], [ %named, %drawn ]")
        arguments = self.traced.arguments
        for place in range(self.leaves, self.leaves + len(self.rows.tables)):
            stored, _ = STORAGE[arguments[place].dtype]
            offset = let(f"mul i64 %number, {math.prod(arguments[place].shape)}")
            put(f"%in{place} = getelementptr {stored}, ptr %table{place}, i64 {offset}")

    def _own_rows(self) -> None:
        """Numbers of the rows of the lanes, a vector for each vector of the block."""
        put, let, wide = self.module.put, self.module.let, self.module.type(I64, self.width)
        put("br label %counted")
        self.module.label("counted")
        further = self.module.splat(let("mul i64 %r, %stride"), I64)
        for j in range(self.copies):
            address = let(f"getelementptr {wide}, ptr %starts, i64 {j}")
            place = let(f"add {wide} {let(f'load {wide}, ptr {address}')}, {further}")
            put(f"%number.{j} = {self.lanes.gather('i64', 8, '%order', place)}")

    def _add(self, place: int, element: int, value: int) -> None:
        put, let, kind = self.module.put, self.module.let, self.vector(place)
        for j in range(self.copies):
            at = element * self.copies + j
            address = let(f"getelementptr {kind}, ptr {self._sum(place)}, i64 {at}")
            before = let(f"load {kind}, ptr {address}")
            after = let(f"fadd {kind} {before}, {self.lanes.of(value, j)}")
            put(f"store {kind} {after}, ptr {address}")

    def _end(self) -> None:
        put, let = self.module.put, self.module.let
        self.module.label("end")
        for place, values in enumerate(self.results if self.rows.mean else []):
            dtype, kind = self._dtype(place), self.vector(place)
            count = self.module.splat(let(f"sitofp i64 %count to {TYPES[dtype]}"), dtype)

            def divide(i: str, place=place, kind=kind, count=count) -> None:
                address = let(f"getelementptr {kind}, ptr {self._sum(place)}, i64 {i}")
                total = let(f"load {kind}, ptr {address}")
                put(f"store {kind} {let(f'fdiv {kind} {total}, {count}')}, ptr {address}")

            self.module.repeat(len(values) * self.copies, divide)
        put("ret void")


class _RowLanes(Lanes):
    """Parameters are read from memory where they are used: registers are too few to keep them.

    Args:
        tables: Arguments of which every lane sees another row.
    """

    def __init__(
        self, loop: Loop, module: Module, copies: int, roots: Collection[int], tables: range
    ):
        super().__init__(loop, module, copies, roots)
        self.tables = tables

    def of(self, index: int, j: int) -> str:
        node = self.loop.program.nodes[index]
        if node.op == "input" and index not in self.loop.uniform:
            slot, element = node.data
            if slot not in self.tables:
                return self.load(slot, element, j)
        return super().of(index, j)

    def load(self, slot: int, element: int, j: int) -> str:
        dtype = self.loop.arguments[slot].dtype
        if slot in self.tables:
            return self._gathered(slot, element, j)
        kind = f"<{self.width} x {STORAGE[dtype][0]}>"
        at = element * self.copies + j
        address = self.module.let(f"getelementptr {kind}, ptr %in{slot}, i64 {at}")
        return self.module.let(f"load {kind}, ptr {address}")

    def _gathered(self, slot: int, element: int, j: int) -> str:
        """An element of each lane's own row."""
        let, argument = self.module.let, self.loop.arguments[slot]
        wide = self.module.type(I64, self.width)
        row = self.module.literal(math.prod(argument.shape), I64, self.width)
        place = let(f"mul {wide} %number.{j}, {row}")
        place = let(f"add {wide} {place}, {self.module.literal(element, I64, self.width)}")
        found = let(self.gather(*STORAGE[argument.dtype], f"%table{slot}", place))
        return self._widened(found, argument.dtype, self.width)

    def gather(self, stored: str, size: int, base: str, places: str) -> str:
        """An expression for what lies at places of an array."""
        kind, pointers = f"<{self.width} x {stored}>", f"<{self.width} x ptr>"
        name = f"llvm.masked.gather.v{self.width}{suffix(stored)}.v{self.width}p0"
        self.module.declare(f"{kind} @{name}({pointers}, i32, {self.bools}, {kind})")
        wide = self.module.type(I64, self.width)
        addresses = self.module.let(f"getelementptr {stored}, ptr {base}, {wide} {places}")
        return (
            f"call {kind} @{name}({pointers} {addresses}, i32 {size}, {self.bools} "
            f"{self.all_true}, {kind} poison)"
        )

    def length(self, slot: int) -> str:
        # Of one row: the sizes are those of the arguments of the step.
        return self.module.let(f"add i64 0, {self.loop.arguments[slot].shape[0]}")
