"""Scalar operations as LLVM IR: scalars for uniform values, vectors for values per trajectory."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flowopt.kernels.native.inner.functions import written_out
from flowopt.kernels.program import BOOL, F32, F64, FLOATS, FUNCTIONS, I64, Node

TYPES: Mapping[str, str] = {F64: "double", F32: "float", I64: "i64", BOOL: "i1"}
INTRINSICS = {
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
}
FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
WHOLE_OPS = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "shl": "shl",
    "shr": "ashr",
}
FLOAT_COMPARISONS = {"lt": "olt", "le": "ole", "eq": "oeq", "ne": "une"}
WHOLE_COMPARISONS = {"lt": "slt", "le": "sle", "eq": "eq", "ne": "ne"}
PURE = "nounwind willreturn memory(none)"


@dataclass
class Module:
    """Text of a module in the making: lines of the function, declarations it needs.

    Attributes:
        width: Lanes of a vector, the same for all types.
        vector_function: (name, dtype, width) → name of the vector function, or None.
        prefix: What the names of functions of one number begin with.
        lines: Of the function.
        declarations: Outside of it.
        symbols: External functions that must be found before the code is linked.
        block: The basic block that is being written.
    """

    width: int
    vector_function: Callable[[str, str, int], str | None]
    prefix: str = ""
    lines: list[str] = field(default_factory=list)
    declarations: dict[str, None] = field(default_factory=dict)
    symbols: dict[str, None] = field(default_factory=dict)
    block: str = ""
    _serial: int = 0

    def put(self, line: str) -> None:
        """Adds a line."""
        self.lines.append(f"  {line}")

    def label(self, name: str) -> None:
        """Begins a basic block."""
        self.lines.append(f"{name}:")
        self.block = name

    def repeat(self, count: int | str, body: Callable[[str], None]) -> None:
        """Writes a loop: what `body` writes, given the name of 0 … count − 1; at least once."""
        before = self.block
        self._serial += 1
        name = f"each{self._serial}"
        self.put(f"br label %{name}")
        self.label(name)
        at = len(self.lines)
        self.put("")
        body(f"%{name}.i")
        self.put(f"%{name}.n = add i64 %{name}.i, 1")
        self.lines[at] = f"  %{name}.i = phi i64 [ 0, %{before} ], [ %{name}.n, %{self.block} ]"
        self.put(f"%{name}.more = icmp slt i64 %{name}.n, {count}")
        self.put(f"br i1 %{name}.more, label %{name}, label %{name}.end")
        self.label(f"{name}.end")

    def let(self, expression: str) -> str:
        """Names the value of an expression."""
        self._serial += 1
        name = f"%t{self._serial}"
        self.put(f"{name} = {expression}")
        return name

    def declare(self, text: str) -> None:
        """Adds a declaration once."""
        self.declarations[f"declare {text}"] = None

    def call(self, result: str, name: str, arguments: list[tuple[str, str]]) -> str:
        """Calls an external function."""
        types = ", ".join(kind for kind, _ in arguments)
        self.declare(f"{result} @{name}({types}) {PURE}")
        values = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return self.let(f"call {result} @{name}({values})")

    def type(self, dtype: str, lanes: int) -> str:
        """Name of a type: a scalar for no lanes."""
        return f"<{lanes} x {TYPES[dtype]}>" if lanes else TYPES[dtype]

    def literal(self, value: float | int | bool, dtype: str, lanes: int) -> str:
        """A number as a literal."""
        if dtype in FLOATS:
            (bits,) = struct.unpack("<Q", struct.pack("<d", value))
            text = f"0x{bits:016X}"
        else:
            text = str(value).lower()
        if not lanes:
            return text
        return "<" + ", ".join([f"{TYPES[dtype]} {text}"] * lanes) + ">"

    def splat(self, value: str, dtype: str) -> str:
        """A scalar in every lane."""
        scalar, vector = TYPES[dtype], self.type(dtype, self.width)
        first = self.let(f"insertelement {vector} poison, {scalar} {value}, i64 0")
        zeros = f"<{self.width} x i32> zeroinitializer"
        return self.let(f"shufflevector {vector} {first}, {vector} poison, {zeros}")

    def operation(self, node: Node, kinds: list[str], values: list[str], lanes: int) -> str:
        """The value of a node whose operands are printed; `kinds` are their types."""
        op, own = node.op, self.type(node.dtype, lanes)
        first = self.type(kinds[0], lanes)
        if op in FUNCTIONS:
            return self._function(op, node.dtype, values, lanes)
        if op == "convert":
            return self._convert(kinds[0], node.dtype, values[0], lanes)
        if op == "select":
            typed = f"{self.type(BOOL, lanes)} {values[0]}"
            return self.let(f"select {typed}, {own} {values[1]}, {own} {values[2]}")
        if op in FLOAT_COMPARISONS:
            if kinds[0] in FLOATS:
                compare = f"fcmp {FLOAT_COMPARISONS[op]}"
            else:
                compare = f"icmp {WHOLE_COMPARISONS[op]}"
            return self.let(f"{compare} {first} {values[0]}, {values[1]}")
        if op == "not":
            return self.let(f"xor {own} {values[0]}, {self.literal(True, BOOL, lanes)}")
        if op == "neg":
            if node.dtype in FLOATS:
                return self.let(f"fneg {own} {values[0]}")
            return self.let(f"sub {own} {self.literal(0, I64, lanes)}, {values[0]}")
        if op == "abs":
            if node.dtype in FLOATS:
                return self._intrinsic("fabs", node.dtype, values, lanes)
            negative = self.let(f"sub {own} {self.literal(0, I64, lanes)}, {values[0]}")
            below = self.let(f"icmp slt {own} {values[0]}, {self.literal(0, I64, lanes)}")
            bools = self.type(BOOL, lanes)
            return self.let(f"select {bools} {below}, {own} {negative}, {own} {values[0]}")
        if op in INTRINSICS:
            return self._intrinsic(INTRINSICS[op], node.dtype, values, lanes)
        if op == "wrap":
            places = self.literal(64 - node.data, I64, lanes)
            high = self.let(f"shl {own} {values[0]}, {places}")
            return self.let(f"ashr {own} {high}, {places}")
        table = FLOAT_OPS if node.dtype in FLOATS else WHOLE_OPS
        return self.let(f"{table[op]} {own} {values[0]}, {values[1]}")

    def _intrinsic(self, name: str, dtype: str, values: list[str], lanes: int) -> str:
        kind = self.type(dtype, lanes)
        suffix = ("v" + str(lanes) if lanes else "") + ("f64" if dtype == F64 else "f32")
        full = f"llvm.{name}.{suffix}"
        self.declare(f"{kind} @{full}({', '.join([kind] * len(values))})")
        typed = ", ".join(f"{kind} {value}" for value in values)
        return self.let(f"call {kind} @{full}({typed})")

    def _convert(self, source: str, target: str, value: str, lanes: int) -> str:
        before, after = self.type(source, lanes), self.type(target, lanes)
        if (source, target) in ((F64, I64), (F32, I64)):
            # A plain conversion of what does not fit is undefined; this one saturates.
            count = f"v{lanes}" if lanes else ""
            full = f"llvm.fptosi.sat.{count}i64.{count}{'f64' if source == F64 else 'f32'}"
            self.declare(f"{after} @{full}({before})")
            return self.let(f"call {after} @{full}({before} {value})")
        names = {
            (F64, F32): "fptrunc",
            (F32, F64): "fpext",
            (I64, F64): "sitofp",
            (I64, F32): "sitofp",
            (BOOL, F64): "uitofp",
            (BOOL, F32): "uitofp",
            (BOOL, I64): "zext",
        }
        return self.let(f"{names[source, target]} {before} {value} to {after}")

    def _function(self, name: str, dtype: str, values: list[str], lanes: int) -> str:
        """A function of the vector library by width, else of the scalar one lane by lane."""
        scalar = self.prefix + name + ("f" if dtype == F32 else "")
        kind = self.type(dtype, lanes)
        inline = written_out(name, dtype, lanes)
        if inline:
            symbol, texts = inline
            self.declarations.update(dict.fromkeys(texts))
            return self.let(f"call {kind} @{symbol}({kind} {values[0]})")
        vector = self.vector_function(name, dtype, lanes) if lanes else None
        if vector:
            self.symbols[vector] = None
            return self.call(kind, vector, [(kind, value) for value in values])
        self.symbols[scalar] = None
        plain = TYPES[dtype]
        if not lanes:
            return self.call(plain, scalar, [(plain, value) for value in values])
        result = "poison"
        for lane in range(lanes):
            parts = [
                (plain, self.let(f"extractelement {kind} {value}, i64 {lane}")) for value in values
            ]
            one = self.call(plain, scalar, parts)
            result = self.let(f"insertelement {kind} {result}, {plain} {one}, i64 {lane}")
        return result
