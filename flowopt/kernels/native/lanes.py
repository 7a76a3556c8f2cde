"""Values of a block of lanes: scalars where they are uniform, else one name per vector."""

from collections.abc import Collection

import torch

from flowopt.kernels.loop import Carried, Loop
from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import BOOL, F32, F64, I64, Node
from flowopt.kernels.scalar import scalar_dtype

# Of a number in memory of a kernel's own.
BYTES = {F64: 8, F32: 4, I64: 8, BOOL: 1}
# Values that are not computed where they stand in the program.
ELSEWHERE = ("total", "rows", "part")
STORAGE = {
    torch.float64: ("double", 8),
    torch.float32: ("float", 4),
    torch.int64: ("i64", 8),
    torch.int32: ("i32", 4),
    torch.int16: ("i16", 2),
    torch.int8: ("i8", 1),
    torch.bool: ("i8", 1),
}


class Lanes:
    """Prints values of a loop for the vectors of one block.

    Args:
        loop: The step.
        module: What is printed to.
        copies: Vectors per block.
        roots: What else is needed, besides what the loop carries.
    """

    def __init__(
        self, loop: Loop, module: Module, copies: int, roots: Collection[int] | None = None
    ):
        """See the class."""
        self.loop, self.module, self.copies = loop, module, copies
        self.width = module.width
        self.names: dict[int, list[str]] = {}
        self.splats: dict[int, str] = {}
        ends = {v for c in loop.carried for v in (c.going, c.ending, c.start)}
        ends |= {loop.goes, *(roots or ())}
        self.used = loop.program.needed(ends)
        # A uniform value is spread over lanes where one needs it, right after it is known.
        self.spread = set(ends)
        for index in self.used:
            if index not in loop.uniform:
                self.spread.update(loop.program.nodes[index].args)

    @property
    def bools(self) -> str:
        """Type of a mask."""
        return self.module.type(BOOL, self.width)

    @property
    def all_true(self) -> str:
        """The mask of all lanes."""
        return self.module.literal(True, BOOL, self.width)

    def dtype(self, index: int) -> str:
        """Type of a value."""
        return self.loop.program.nodes[index].dtype

    def vector(self, index: int) -> str:
        """Type of a vector of such values."""
        return self.module.type(self.dtype(index), self.width)

    def number(self, index: int) -> float | int | bool | None:
        """The number of a constant."""
        return self.loop.program.value(index)

    def same(self, index: int, value: str, vector: bool = False) -> str:
        """An expression for a value itself, to give it a second name."""
        kind = self.vector(index) if vector else TYPES[self.dtype(index)]
        return f"select i1 true, {kind} {value}, {kind} {value}"

    def one(self, index: int) -> str:
        """A uniform value as a scalar."""
        number = self.number(index)
        if number is not None:
            return self.module.literal(number, self.dtype(index), 0)
        return self.names[index][0]

    def of(self, index: int, j: int) -> str:
        """A value as vector j of the block."""
        number = self.number(index)
        if number is not None:
            return self.module.literal(number, self.dtype(index), self.width)
        if index in self.loop.uniform:
            return self.splats[index]
        return self.names[index][j]

    def spread_out(self, index: int) -> None:
        """Puts a uniform value into every lane of a vector if a lane needs it."""
        if index in self.spread and index in self.loop.uniform:
            self.splats[index] = self.module.splat(self.names[index][0], self.dtype(index))

    def print_values(self, indices) -> None:
        """Prints values in order, those that are known already left out."""
        for index in indices:
            node = self.loop.program.nodes[index]
            if node.op == "constant" or index in self.names or is_wide(node):
                continue
            if index in self.loop.uniform:
                self.names[index] = [self._scalar(index)]
                self.spread_out(index)
                continue
            self.names[index] = [self.of_lane(index, j) for j in range(self.copies)]

    def _scalar(self, index: int) -> str:
        node = self.loop.program.nodes[index]
        kinds = [self.dtype(arg) for arg in node.args]
        if node.op == "input":
            return self.load_scalar("in", *node.data)
        values = [self.one(arg) for arg in node.args]
        if node.op == "gather":
            return self.load_scalar("in", node.data, values[0])
        if node.op == "length":
            return self.length(node.data)
        return self.module.operation(node, kinds, values, 0)

    def of_lane(self, index: int, j: int) -> str:
        """Prints a value of vector j, whose operands are printed; returns its name."""
        node = self.loop.program.nodes[index]
        kinds = [self.dtype(arg) for arg in node.args]
        if node.op == "input":
            slot, element = node.data
            return self.load(slot, element, j)
        values = [self.of(arg, j) for arg in node.args]
        if node.op != "gather":
            return self.module.operation(node, kinds, values, self.width)
        let, wide = self.module.let, self.module.type(I64, self.width)
        kind, result = self.vector(index), "poison"
        for lane in range(self.width):
            place = let(f"extractelement {wide} {values[0]}, i64 {lane}")
            one = self.load_scalar("in", node.data, place)
            result = let(f"insertelement {kind} {result}, {TYPES[node.dtype]} {one}, i64 {lane}")
        return result

    def length(self, slot: int) -> str:
        """Elements of an argument."""
        address = self.module.let(f"getelementptr i64, ptr %sizes, i64 {slot}")
        return self.module.let(f"load i64, ptr {address}")

    def load_scalar(self, kind: str, slot: int, element: int | str) -> str:
        """A number of an argument that all trajectories share."""
        let, dtype = self.module.let, self.loop.arguments[slot].dtype
        stored, _ = STORAGE[dtype]
        address = let(f"getelementptr {stored}, ptr %{kind}{slot}, i64 {element}")
        return self._widened(let(f"load {stored}, ptr {address}"), dtype, 0)

    def _address(self, kind: str, slot: int, element: int | str, j: int) -> str:
        let = self.module.let
        stored, _ = STORAGE[self.loop.arguments[slot].dtype]
        place = f"%lane.{j}"
        if element not in (0, "0"):
            place = let(f"add i64 {let(f'mul i64 %count, {element}')}, {place}")
        return let(f"getelementptr {stored}, ptr %{kind}{slot}, i64 {place}")

    def load(self, slot: int, element: int | str, j: int) -> str:
        """Numbers of the lanes of vector j; zero beyond the last trajectory."""
        dtype = self.loop.arguments[slot].dtype
        if slot in self.loop.single:
            return self.module.splat(self.load_scalar("in", slot, 0), scalar_dtype(dtype))
        stored, size = STORAGE[dtype]
        kind = f"<{self.width} x {stored}>"
        name = f"llvm.masked.load.v{self.width}{suffix(stored)}.p0"
        self.module.declare(f"{kind} @{name}(ptr, i32, {self.bools}, {kind})")
        address = self._address("in", slot, element, j)
        loaded = self.module.let(
            f"call {kind} @{name}(ptr {address}, i32 {size}, {self.bools} %valid.{j}, "
            f"{kind} zeroinitializer)"
        )
        return self._widened(loaded, dtype, self.width)

    def store(
        self,
        carried: Carried,
        value: str,
        j: int,
        mask: str,
        element: int | str | None = None,
    ) -> None:
        """Writes the lanes of vector j that are in a mask."""
        element = carried.element if element is None else element
        assert element is not None
        dtype = self.loop.arguments[carried.slot].dtype
        stored, size = STORAGE[dtype]
        kind = f"<{self.width} x {stored}>"
        name = f"llvm.masked.store.v{self.width}{suffix(stored)}.p0"
        self.module.declare(f"void @{name}({kind}, ptr, i32, {self.bools})")
        address = self._address("out", carried.slot, element, j)
        inner = self.module.type(scalar_dtype(dtype), self.width)
        if inner != kind:
            how = "zext" if dtype == torch.bool else "trunc"
            value = self.module.let(f"{how} {inner} {value} to {kind}")
        if carried.slot in self.loop.merged:
            value = self.module.let(f"extractelement {kind} {value}, i64 0")
            self.module.put(f"store {stored} {value}, ptr %out{carried.slot}")
            return
        self.module.put(
            f"call void @{name}({kind} {value}, ptr {address}, i32 {size}, {self.bools} {mask})"
        )

    def _widened(self, value: str, dtype: torch.dtype, lanes: int) -> str:
        stored, _ = STORAGE[dtype]
        kind = f"<{lanes} x {stored}>" if lanes else stored
        inner = self.module.type(scalar_dtype(dtype), lanes)
        if kind == inner:
            return value
        how = "trunc" if dtype == torch.bool else "sext"
        return self.module.let(f"{how} {kind} {value} to {inner}")

    def fill(self, carried: Carried, value: str, mask: str) -> str:
        """A vector whose lanes outside of a mask copy the first lane in it.

        An ended trajectory would go on to overflow or step on the spot, and numbers that are not
        finite make the vector library slow.
        """
        let, kind = self.module.let, self.vector(carried.start)
        bits = let(f"bitcast {self.bools} {mask} to i{self.width}")
        name = f"llvm.cttz.i{self.width}"
        self.module.declare(f"i{self.width} @{name}(i{self.width}, i1)")
        first = let(f"call i{self.width} @{name}(i{self.width} {bits}, i1 false)")
        # No lane at all gives the width itself.
        inside = let(f"and i{self.width} {first}, {self.width - 1}")
        one = let(f"extractelement {kind} {value}, i{self.width} {inside}")
        spread = self.module.splat(one, self.dtype(carried.start))
        return let(f"select {self.bools} {mask}, {kind} {value}, {kind} {spread}")

    def any_of(self, masks: list[str]) -> str:
        """Whether any lane is in any of some masks."""
        let = self.module.let
        union = masks[0]
        for mask in masks[1:]:
            union = let(f"or {self.bools} {union}, {mask}")
        bits = let(f"bitcast {self.bools} {union} to i{self.width}")
        return let(f"icmp ne i{self.width} {bits}, 0")

    def count_of(self, masks: list[str]) -> str:
        """How many lanes are in some masks."""
        let, kind = self.module.let, f"i{self.width}"
        self.module.declare(f"{kind} @llvm.ctpop.{kind}({kind})")
        total = "0"
        for mask in masks:
            bits = let(f"bitcast {self.bools} {mask} to {kind}")
            number = let(f"call {kind} @llvm.ctpop.{kind}({kind} {bits})")
            total = let(f"add i64 {total}, {let(f'zext {kind} {number} to i64')}")
        return total


def is_wide(node: Node) -> bool:
    """Whether a value is computed by a loop over elements or over rows."""
    return node.size > 1 or node.op in ELSEWHERE


def suffix(stored: str) -> str:
    """Of a type in names of intrinsics."""
    return {"double": "f64", "float": "f32"}.get(stored, stored)
