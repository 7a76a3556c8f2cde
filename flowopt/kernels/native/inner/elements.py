"""What has many elements per trajectory: kept in memory, computed in loops over elements.

Memory of a block is a piece of scratch: what is carried twice (before and after the step), the
results of loops over rows, and values that a later loop reads. Vector j of element e lies at
e·copies + j.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from flowopt.kernels.loop import Carried, Loop
from flowopt.kernels.native.inner.rows import RowFunction
from flowopt.kernels.native.lanes import BYTES, Lanes, is_wide
from flowopt.kernels.native.printer import Module
from flowopt.kernels.program import I64, Node, UnfitError

LINE = 64


class Sink(NamedTuple):
    """Somebody who takes the elements of a value.

    Attributes:
        value: What is taken.
        size: How many elements.
        take: (element, j, name of the vector) → None; prints.
    """

    value: int
    size: int
    take: Callable[[str, int, str], None]


class Elements:
    """Prints loops over elements and calls of the function over rows.

    Args:
        loop: The step.
        module: What is printed to.
        lanes: Values that are one number per trajectory.
        function: Loss and gradient over rows, where the step needs it.
        body: Values that every step needs; the others are those of a trajectory that ends.
    """

    def __init__(
        self,
        loop: Loop,
        module: Module,
        lanes: Lanes,
        function: RowFunction | None,
        body: Collection[int],
    ):
        """See the class."""
        self.loop, self.module, self.lanes, self._function = loop, module, lanes, function
        self.nodes = loop.program.nodes
        self.copies = lanes.copies
        self.carried = [c for c in loop.carried if self.nodes[c.start].size > 1]
        self.bytes = 0
        # Where in a buffer what is carried lies; there are two buffers.
        self.offsets = {c.start: self._room(self.nodes[c.start]) for c in self.carried}
        self.buffer = self.bytes
        self.bytes *= 2
        self.places: dict[int, int] = {}
        self._keep(set(body))

    @property
    def function(self) -> RowFunction:
        """The function over rows, of a step that calls one."""
        assert self._function is not None
        return self._function

    def _room(self, node: Node) -> int:
        """The offset of new memory for the elements of a value."""
        offset = self.bytes
        length = node.size * self.copies * self.module.width * BYTES[node.dtype]
        self.bytes += -(-length // LINE) * LINE
        return offset

    def _keep(self, body: set[int]) -> None:
        """Memory for what a loop makes and another, or the function over rows, reads."""
        level = self._levels(self.lanes.used)
        read = {c.ending for c in self.carried if c.ending in body and self._looped(c.ending)}
        for index in self.lanes.used:
            node = self.nodes[index]
            if node.op == "rows":
                self.places[index] = self.bytes
                self.bytes += self.function.bytes
                leaves = node.args[: self.function.leaves]
                read |= {a for a in leaves if not (self._in_memory(a) and self._has_place(a))}
                continue
            for arg in node.args:
                later = level[index] > level[arg] or (arg in body and index not in body)
                if later and self.nodes[arg].size > 1 and not self._in_memory(arg):
                    read.add(arg)
        self.places |= {index: self._room(self.nodes[index]) for index in sorted(read)}

    def _in_memory(self, index: int) -> bool:
        """Whether a value is read from memory without having been computed."""
        return self.nodes[index].op in ("input", "part")

    def _has_place(self, index: int) -> bool:
        """Whether the elements lie as the function over rows wants them."""
        node = self.nodes[index]
        return node.size > 1 and (node.op == "part" or index in self.offsets)

    def _levels(self, indices: Iterable[int]) -> dict[int, int]:
        """How many loops over elements have to end before a value can be computed."""
        level: dict[int, int] = {}
        for index in indices:
            node, found = self.nodes[index], 0
            for arg in node.args:
                computed = self.nodes[arg].size > 1 and not self._in_memory(arg)
                after = self.nodes[arg].op == "total" or (node.op == "rows" and computed)
                found = max(found, level.get(arg, 0) + after)
            level[index] = found
        return level

    def print_values(self, indices: Iterable[int], sinks: Sequence[Sink] = ()) -> None:
        """Prints values in an order that can be: numbers, then loops over elements, and again."""
        known = set(self.lanes.names)
        unknown = [i for i in indices if i not in known and self.nodes[i].op != "constant"]
        inside = set(unknown)
        level = self._levels(unknown)
        last = max(level.values(), default=0)
        for now in range(last + 1):
            here = [i for i in unknown if level[i] == now]
            for index in here:
                if self.nodes[index].op == "rows":
                    self._call(index)
                elif self.nodes[index].op == "part" and self.nodes[index].size == 1:
                    self.lanes.names[index] = self._loaded(index, "0")
                elif not is_wide(self.nodes[index]):
                    self.lanes.print_values([index])
            loops = [i for i in here if self._looped(i)]
            taken = [s for s in sinks if (level[s.value] if s.value in inside else 0) == now]
            sizes = dict.fromkeys([*map(self._size, loops), *(s.size for s in taken)])
            for size in sizes:
                self._loop(
                    size,
                    [i for i in loops if self._size(i) == size],
                    [s for s in taken if s.size == size],
                )

    def _looped(self, index: int) -> bool:
        node = self.nodes[index]
        return node.op == "total" or (node.size > 1 and not self._in_memory(index))

    def _size(self, index: int) -> int:
        node = self.nodes[index]
        return node.data if node.op == "total" else node.size

    def _loop(self, size: int, indices: list[int], sinks: list[Sink]) -> None:
        """One loop over the elements of values of the same size."""
        totals = [i for i in indices if self.nodes[i].op == "total"]
        module, before = self.module, self.module.block
        heads: list[int] = []
        sums: dict[int, list[str]] = {}

        def body(element: str) -> None:
            heads.extend(range(len(module.lines), len(module.lines) + len(totals) * self.copies))
            for total in totals:
                sums[total] = [f"%sum{total}.{j}.{module.block}" for j in range(self.copies)]
                for name in sums[total]:
                    module.put(name)
            local: dict[int, list[str]] = {}
            for index in indices:
                local[index] = [
                    self._value(index, element, j, local, sums) for j in range(self.copies)
                ]
                if index in self.places and index not in totals:
                    for j in range(self.copies):
                        self._store(index, element, j, local[index][j])
            for sink in sinks:
                for j in range(self.copies):
                    sink.take(element, j, self._operand(sink.value, element, j, local))
            for place, total in enumerate(totals):
                for j in range(self.copies):
                    kind = self.lanes.vector(total)
                    zero = module.literal(0, self.nodes[total].dtype, module.width)
                    module.lines[heads[place * self.copies + j]] = (
                        f"  {sums[total][j]} = phi {kind} [ {zero}, %{before} ], "
                        f"[ {local[total][j]}, %{module.block} ]"
                    )
                self.lanes.names[total] = local[total]

        module.repeat(size, body)

    def _value(
        self,
        index: int,
        element: str,
        j: int,
        local: dict[int, list[str]],
        sums: dict[int, list[str]],
    ) -> str:
        node, module = self.nodes[index], self.module
        if node.op == "place":
            return module.splat(element, I64)
        operands = [self._operand(arg, element, j, local) for arg in node.args]
        if node.op == "total":
            kind = self.lanes.vector(index)
            how = "fadd" if node.dtype in ("f64", "f32") else "add"
            return module.let(f"{how} {kind} {sums[index][j]}, {operands[0]}")
        return module.operation(
            node, [self.nodes[a].dtype for a in node.args], operands, module.width
        )

    def _operand(self, index: int, element: str, j: int, local: dict[int, list[str]]) -> str:
        if index in local:
            return local[index][j]
        if self.nodes[index].size == 1:
            return self.lanes.of(index, j)
        return self._load(index, element, j)

    def base(self, index: int) -> str:
        """Address of the elements of a value."""
        node, let = self.nodes[index], self.module.let
        if index in self.offsets:
            return let(f"getelementptr i8, ptr %before, i64 {self.offsets[index]}")
        if node.op == "part":
            offset = self.places[node.args[0]] + self.function.offsets[node.data]
            return let(f"getelementptr i8, ptr %scratch, i64 {offset}")
        return let(f"getelementptr i8, ptr %scratch, i64 {self.places[index]}")

    def _at(self, base: str, index: int, element: str, j: int) -> str:
        let, place = self.module.let, element
        if self.copies > 1:
            place = let(f"mul i64 {element}, {self.copies}")
            place = let(f"add i64 {place}, {j}")
        return let(f"getelementptr {self.lanes.vector(index)}, ptr {base}, i64 {place}")

    def _load(self, index: int, element: str, j: int) -> str:
        node = self.nodes[index]
        if node.op == "input" and index not in self.offsets:
            return self.lanes.load(node.data[0], element, j)
        address = self._at(self.base(index), index, element, j)
        return self.module.let(f"load {self.lanes.vector(index)}, ptr {address}")

    def _loaded(self, index: int, element: str) -> list[str]:
        return [self._load(index, element, j) for j in range(self.copies)]

    def _store(self, index: int, element: str, j: int, value: str) -> None:
        address = self._at(self.base(index), index, element, j)
        self.module.put(f"store {self.lanes.vector(index)} {value}, ptr {address}")

    def _call(self, index: int) -> None:
        """Loss and gradient at a position: each leaf by its address."""
        node, let = self.nodes[index], self.module.let
        leaves = node.args[: self.function.leaves]
        addresses = []
        for leaf in leaves:
            addresses.append(f"ptr {self.base(leaf)}")
            if self.nodes[leaf].size == 1:
                for j in range(self.copies):
                    self._store(leaf, "0", j, self.lanes.of(leaf, j))
            elif self.nodes[leaf].op == "input" and leaf not in self.offsets:
                self.module.repeat(self.nodes[leaf].size, partial(self._copy, leaf))
        places, count = self._rows_of(node)
        sums = let(f"getelementptr i8, ptr %scratch, i64 {self.places[index]}")
        self.module.put(
            f"call void @rows(ptr %pointers, ptr %sizes, ptr {sums}, {places}, i64 {count}, "
            f"{', '.join(addresses)})"
        )

    def _copy(self, index: int, element: str) -> None:
        for j in range(self.copies):
            self._store(index, element, j, self._load(index, element, j))

    def _rows_of(self, node: Node) -> tuple[str, str]:
        """Where the numbers of the rows lie that an evaluation sees, and how many they are.

        The first address is null for all rows; with others, so many numbers further is the next
        row, and each lane's first one is this far away.
        """
        let, nothing = self.module.let, "ptr null, i64 1, ptr null"
        if not self.function.rows.order:
            return nothing, self.function.count(self.module)
        number = node.args[-1]
        rows, _, size, *apart = self.function.rows.order
        count = let(f"load i64, ptr %in{size}")
        if apart:
            stride, aside = (let(f"load i64, ptr %in{slot}") for slot in apart)
            each = let(f"mul i64 {count}, {stride}")
            drawn = let(f"sdiv i64 {self.lanes.length(rows)}, {each}")
            self._find_starts(number, let(f"sub i64 {drawn}, 1"), each, aside)
            return f"ptr %in{rows}, i64 {stride}, ptr %starts", count
        if number not in self.loop.uniform:
            raise UnfitError("it draws minibatches, and replicas are at different steps")
        offset = let(f"mul i64 {self.lanes.one(number)}, {count}")
        return (
            f"ptr {let(f'getelementptr i64, ptr %in{rows}, i64 {offset}')}, i64 1, ptr null",
            count,
        )

    def _find_starts(self, number: int, last: str, each: str, aside: str) -> None:
        """Where the rows of each lane's minibatch begin, given how many numbers one takes.

        Lanes that have ended compute on, at steps for which nothing was drawn.
        """
        let, wide = self.module.let, self.module.type(I64, self.lanes.width)
        last, each, aside = (self.module.splat(value, I64) for value in (last, each, aside))
        zero, name = self.module.literal(0, I64, self.lanes.width), f"v{self.lanes.width}i64"
        for what in ("smin", "smax"):
            self.module.declare(f"{wide} @llvm.{what}.{name}({wide}, {wide})")
        call = f"call {wide} @llvm.{{}}.{name}({wide} {{}}, {wide} {{}})"
        lanes = ", ".join(f"i64 {lane}" for lane in range(self.lanes.width))
        for j in range(self.copies):
            lane = let(f"add {wide} {self.module.splat(f'%lane.{j}', I64)}, <{lanes}>")
            some = let(call.format("smin", self.lanes.of(number, j), last))
            start = let(f"mul {wide} {let(call.format('smax', some, zero))}, {each}")
            start = let(f"add {wide} {start}, {let(f'mul {wide} {lane}, {aside}')}")
            address = let(f"getelementptr {wide}, ptr %starts, i64 {j}")
            self.module.put(f"store {wide} {start}, ptr {address}")

    def next_sinks(self) -> list[Sink]:
        """What the next step starts from goes to the other buffer."""
        return [self._to_buffer(carried, "%after.state") for carried in self.carried]

    def _to_buffer(self, carried: Carried, buffer: str) -> Sink:
        def take(element: str, j: int, value: str) -> None:
            base = self.module.let(
                f"getelementptr i8, ptr {buffer}, i64 {self.offsets[carried.start]}"
            )
            address = self._at(base, carried.start, element, j)
            self.module.put(f"store {self.lanes.vector(carried.start)} {value}, ptr {address}")

        return Sink(carried.going, self.nodes[carried.start].size, take)

    def from_buffer(self, carried: Carried, buffer: str, element: str, j: int) -> str:
        """An element of what is carried, in one of the buffers."""
        base = self.module.let(f"getelementptr i8, ptr {buffer}, i64 {self.offsets[carried.start]}")
        address = self._at(base, carried.start, element, j)
        return self.module.let(f"load {self.lanes.vector(carried.start)}, ptr {address}")

    def to_buffer(self, carried: Carried, buffer: str, element: str, j: int, value: str) -> None:
        """Writes an element of what is carried."""
        self._to_buffer(carried, buffer).take(element, j, value)

    def each(self, body: Callable[[Carried, str, int], None]) -> None:
        """A loop over the elements of everything that is carried."""
        for carried in self.carried:

            def vectors(element: str, carried=carried) -> None:
                for j in range(self.copies):
                    body(carried, element, j)

            self.module.repeat(self.nodes[carried.start].size, vectors)
