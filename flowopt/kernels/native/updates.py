"""The update template: one step of every element of many tensors, wherever they lie, in place.

    i64 run(ptr table, ptr numbers, i64 first, i64 last, i64 sums, i64 chunks)

steps the chunks first … last − 1 of a table, or sums over their elements. A row of the table holds
the address of each column (a variable or the gradient) at the chunk's first element, how many
elements it has, and the index of its first element among all. `numbers` holds what all elements
share, eight bytes each: inputs, then results, which are written with the first chunk. Sums go to
(sum, chunk), float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from flowopt.core.noise import WORDS
from flowopt.kernels.native.inner.columns import Columns
from flowopt.kernels.native.inner.sums import Sums
from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import FUNCTIONS, I64, Node, Program

# Vectors per turn of the inner loop, where there is no function that needs the registers.
COPIES = 4
WIDEST = 512


@dataclass(frozen=True)
class Elementwise:
    """A program for one element.

    Attributes:
        program: The values.
        columns: Input value of each column of the table.
        results: New value of each column; None where it stays.
        element: Input value that is the index of an element.
        numbers: Input values that all elements share.
        kept: Result values that all elements share.
        sums: Values to be summed over all elements, float64.
        stored: How the columns lie in memory, a key of `STORED`.
    """

    program: Program
    columns: Sequence[int]
    results: Sequence[int | None]
    element: int
    numbers: Sequence[int]
    kept: Sequence[int]
    sums: Sequence[int]
    stored: str

    @cached_property
    def used(self) -> list[int]:
        """All values, operands first."""
        return self.program.needed([*self.single, *self.kept])

    @property
    def single(self) -> set[int]:
        """What is computed for every element in the end."""
        return {*(r for r in self.results if r is not None), *self.sums}

    @cached_property
    def uniform(self) -> frozenset[int]:
        """Values that all elements share."""
        single = {self.element, *self.columns}
        found: set[int] = set()
        for index in self.used:
            if index not in single and all(a in found for a in self.program.nodes[index].args):
                found.add(index)
        return frozenset(found)

    @cached_property
    def blocked(self) -> frozenset[int]:
        """Values that a block of `WORDS` elements shares, as those of the noise generator."""
        found: set[int] = set()
        for index in self.used:
            node = self.program.nodes[index]
            first = node.op == "shr" and node.args[0] == self.element
            if (first and self.program.value(node.args[1]) == WORDS.bit_length() - 1) or (
                index not in self.uniform
                and node.args
                and found.issuperset(arg for arg in node.args if arg not in self.uniform)
            ):
                found.add(index)
        return frozenset(found)

    @cached_property
    def border(self) -> list[int]:
        """Values of blocks that single elements need."""
        needed = self.single
        for index in self.used:
            if index not in self.blocked:
                needed.update(self.program.nodes[index].args)
        return sorted(needed & self.blocked)

    @cached_property
    def calls(self) -> bool:
        """Whether a function is called for every element."""
        return any(
            self.program.nodes[i].op in FUNCTIONS for i in self.used if i not in self.uniform
        )


class Source(NamedTuple):
    """A printed kernel: LLVM IR and the external functions that it calls."""

    text: str
    symbols: tuple[str, ...]


def print_update(
    work: Elementwise,
    width: int,
    vector_function: Callable[[str, str, int], str | None],
    copies: int | None = None,
) -> Source:
    """LLVM IR of the update of a table of chunks.

    Args:
        work: For one element.
        width: Lanes of a vector.
        vector_function: (name, dtype, width) → name in the vector library, or None.
        copies: Vectors per turn; by default by the kind of work.
    """
    if copies is None:
        copies = WORDS if work.blocked else 1 if work.calls else COPIES
    module = Module(width, vector_function)
    _Template(work, module, copies).write()
    bits = min(64 * width, WIDEST)
    attributes = f'"prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'
    text = "\n".join(
        [
            *module.declarations,
            "define i64 @run(ptr %table, ptr %numbers, i64 %first, i64 %last, i64 %sums.at, "
            f"i64 %chunks) nounwind {attributes} {{",
            *module.lines,
            "}",
            "",
        ]
    )
    return Source(text, tuple(module.symbols))


class _Template:
    """Writes the function block by block; dominating blocks first."""

    def __init__(self, work: Elementwise, module: Module, copies: int):
        self.work, self.module, self.copies = work, module, copies
        self.width = module.width
        self.shared: dict[int, str] = {}
        self.splats: dict[int, str] = {}
        self.memory = Columns(module, work.stored)
        self.sums = Sums(module, len(work.sums))

    def write(self) -> None:
        """All blocks."""
        self._entry()
        self._chunk()
        self._body()
        self._tail()
        self._next()

    def _entry(self) -> None:
        """What all elements share."""
        put, let, work = self.module.put, self.module.let, self.work
        self.module.label("entry")
        for place, index in enumerate(work.numbers):
            kind = self._kind(index)
            address = let(f"getelementptr {kind}, ptr %numbers, i64 {place}")
            self.shared[index] = let(f"load {kind}, ptr {address}")
        for index in work.used:
            if index in work.uniform and index not in self.shared:
                self.shared[index] = self._scalar(index)
        self._spread_out()
        self.sums.begin("%sums.at")
        put("%keeps = icmp eq i64 %first, 0")
        put("br i1 %keeps, label %results, label %start")
        self.module.label("results")
        for place, index in enumerate(work.kept):
            kind = self._kind(index)
            place += len(work.numbers)
            address = let(f"getelementptr {kind}, ptr %numbers, i64 {place}")
            put(f"store {kind} {self.shared[index]}, ptr {address}")
        put("br label %start")
        self.module.label("start")
        put("%some = icmp slt i64 %first, %last")
        put("br i1 %some, label %chunk, label %exit")

    def _kind(self, index: int) -> str:
        return TYPES[self.work.program.nodes[index].dtype]

    def _scalar(self, index: int) -> str:
        program = self.work.program
        node, number = program.nodes[index], program.value(index)
        if number is not None:
            return self.module.literal(number, node.dtype, 0)
        kinds = [program.nodes[arg].dtype for arg in node.args]
        return self.module.operation(node, kinds, [self.shared[arg] for arg in node.args], 0)

    def _spread_out(self) -> None:
        """Puts into every lane what the elements need."""
        work, program = self.work, self.work.program
        needed = work.single
        for index in work.used:
            if index not in work.uniform:
                needed.update(program.nodes[index].args)
        for index in sorted(needed & work.uniform):
            dtype = program.nodes[index].dtype
            number = program.value(index)
            if number is None:
                self.splats[index] = self.module.splat(self.shared[index], dtype)
            else:
                self.splats[index] = self.module.literal(number, dtype, self.width)

    def _chunk(self) -> None:
        """Addresses and length of one chunk."""
        put, let = self.module.put, self.module.let
        columns = len(self.work.columns)
        self.module.label("chunk")
        put("%c = phi i64 [ %first, %start ], [ %c.next, %next ]")
        put(f"%row = mul i64 %c, {columns + 2}")
        for place in range(columns):
            address = let(f"getelementptr i64, ptr %table, i64 {let(f'add i64 %row, {place}')}")
            put(f"%column{place} = load ptr, ptr {address}")
        for place, name in enumerate(("length", "offset"), columns):
            address = let(f"getelementptr i64, ptr %table, i64 {let(f'add i64 %row, {place}')}")
            put(f"%{name} = load i64, ptr {address}")
        put("%c.next = add i64 %c, 1")
        put("%further = icmp slt i64 %c.next, %last")
        self.sums.clear()
        whole = "%length"
        if self.work.blocked:
            put(f"%within = and i64 %offset, {WORDS - 1}")
            put("%aligned = icmp eq i64 %within, 0")
            whole = let("select i1 %aligned, i64 %length, i64 0")
        put(f"%rest = urem i64 {whole}, {self.width * self.copies}")
        put(f"%full = sub i64 {whole}, %rest")
        put("%whole = icmp sgt i64 %full, 0")
        put("br i1 %whole, label %body, label %check")

    def _body(self) -> None:
        """Whole vectors."""
        put, let = self.module.put, self.module.let
        self.module.label("body")
        put("%i = phi i64 [ 0, %chunk ], [ %i.next, %body ]")
        places = [let(f"add i64 %i, {self.width * j}") for j in range(self.copies)]
        blocks = self._blocks()
        values = [
            self._values(place, self.memory.load, self._of_blocks(blocks, j))
            for j, place in enumerate(places)
        ]
        for place, found in zip(places, values, strict=True):
            self._store_all(place, found, self.memory.store)
            for number, index in enumerate(self.work.sums):
                self.sums.add(number, found[index])
        put(f"%i.next = add i64 %i, {self.width * self.copies}")
        put("%more = icmp slt i64 %i.next, %full")
        put("br i1 %more, label %body, label %check")

    def _tail(self) -> None:
        """What is left, behind a mask."""
        put = self.module.put
        self.module.label("check")
        put("%left = icmp slt i64 %full, %length")
        put("br i1 %left, label %tail, label %next")
        self.module.label("tail")
        put("%k = phi i64 [ %full, %check ], [ %k.next, %tail ]")
        end = self.module.splat("%length", I64)
        wide = self.module.type(I64, self.width)
        put(f"%mask = icmp slt {wide} {self._counted('%k')}, {end}")
        found = self._values("%k", lambda address: self.memory.load_some(address, "%mask"))
        self._store_all(
            "%k", found, lambda address, value: self.memory.store_some(address, value, "%mask")
        )
        for number, index in enumerate(self.work.sums):
            self.sums.add(number, found[index], "%mask")
        put(f"%k.next = add i64 %k, {self.width}")
        put("%again = icmp slt i64 %k.next, %length")
        put("br i1 %again, label %tail, label %next")

    def _next(self) -> None:
        put = self.module.put
        self.module.label("next")
        self.sums.end("%c", "%chunks")
        put("br i1 %further, label %chunk, label %exit")
        self.module.label("exit")
        put("ret i64 0")

    def _counted(self, first: str) -> str:
        """first, first + 1, …, one per lane."""
        wide = self.module.type(I64, self.width)
        numbers = ", ".join(f"i64 {lane}" for lane in range(self.width))
        return self.module.let(f"add {wide} {self.module.splat(first, I64)}, <{numbers}>")

    def _address(self, column: int, place: str) -> str:
        return self.module.let(
            f"getelementptr {self.memory.kind}, ptr %column{column}, i64 {place}"
        )

    def _store_all(self, place: str, found: Mapping[int, str], store: Callable) -> None:
        for column, result in enumerate(self.work.results):
            if result is not None:
                store(self._address(column, place), found[result])

    def _blocks(self) -> dict[int, str]:
        """What the blocks of one turn share, one block per lane."""
        found = dict(self.splats)
        for index in self.work.used:
            if index not in self.work.blocked:
                continue
            node = self.work.program.nodes[index]
            if self.work.element in node.args:
                first = self.module.let("add i64 %i, %offset")
                first = self.module.let(f"ashr i64 {first}, {WORDS.bit_length() - 1}")
                found[index] = self._counted(first)
            else:
                found[index] = self._operation(node, found)
        return found

    def _of_blocks(self, blocks: Mapping[int, str], j: int) -> dict[int, str]:
        """What elements of vector j of a turn need of their blocks."""
        places = [(j * self.width + lane) // WORDS for lane in range(self.width)]
        mask = ", ".join(f"i32 {place}" for place in places)
        found = {}
        for index in self.work.border:
            kind = self.module.type(self.work.program.nodes[index].dtype, self.width)
            found[index] = self.module.let(
                f"shufflevector {kind} {blocks[index]}, {kind} poison, "
                f"<{self.width} x i32> <{mask}>"
            )
        return found

    def _operation(self, node: Node, found: Mapping[int, str]) -> str:
        kinds = [self.work.program.nodes[arg].dtype for arg in node.args]
        values = [found[arg] for arg in node.args]
        return self.module.operation(node, kinds, values, self.width)

    def _values(
        self, place: str, load: Callable[[str], str], of_blocks: Mapping[int, str] | None = None
    ) -> dict[int, str]:
        """Values of the elements of one vector; those of their blocks may be known."""
        work, program = self.work, self.work.program
        found = {**self.splats, **(of_blocks or {})}
        known = work.uniform if of_blocks is None else work.uniform | work.blocked
        places = {index: column for column, index in enumerate(work.columns)}
        for index in work.used:
            if index in known:
                continue
            if index == work.element:
                found[index] = self._counted(self.module.let(f"add i64 {place}, %offset"))
            elif index in places:
                found[index] = load(self._address(places[index], place))
            else:
                found[index] = self._operation(program.nodes[index], found)
        return found
