"""Scalar programs: SSA over single numbers, folded and merged while they are built."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowopt.errors import CompatibilityError

# Types of values. Narrow integers are computed as i64 and wrapped; only their storage is narrow.
F64, F32, I64, BOOL = "f64", "f32", "i64", "bool"
FLOATS = (F64, F32)
MOST_OPERATIONS = 20_000


class UnfitError(CompatibilityError):
    """A step that can not be turned into a kernel; the message says why.

    Attributes:
        kept: Objects that a remembered refusal is about.
    """

    kept: list | None = None


class Node(NamedTuple):
    """One value.

    Attributes:
        op: "constant", "input", "gather", "length", one of `WIDE_OPS`, or a name in `FOLDS`,
            `MACHINE_OPS` or `FUNCTIONS`.
        dtype: Type of the value.
        args: Indices of the operands.
        data: Value of a constant; (slot, element) of an input, the element None where the value
            stands for all of them; slot of a gather, whose operand is the place of the element,
            or of a length; bits of a wrap; elements of a total; which result of "rows" a part is.
        size: Elements that the value stands for, computed one after the other; 1 for one number.
    """

    op: str
    dtype: str
    args: tuple[int, ...] = ()
    data: Any = None
    size: int = 1


def _wrapped(value: float, bits: int = 64) -> int:
    half = 1 << (bits - 1)
    return (int(value) + half) % (2 * half) - half


def _divide(a: float, b: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(a) / np.float64(b))


# Operations that are folded on constants; float results are rounded to their type afterwards.
# Sums, products, quotients and roots of float32 are correct when rounded from float64.
FOLDS: Mapping[str, Callable] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "neg": lambda a: -a,
    "abs": abs,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: not a,
    "shl": lambda a, b: a << b,
    "shr": lambda a, b: a >> b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "select": lambda c, a, b: a if c else b,
}
# Not numbers from numbers: the index of an element, a sum over elements, loss and gradient over the
# rows of the data, and one of these results.
WIDE_OPS = ("place", "total", "rows", "part")
COMPARISONS = ("lt", "le", "eq", "ne")
COMMUTATIVE = ("add", "mul", "and", "or", "xor", "eq", "ne")
# Computed by the machine without a call.
MACHINE_OPS = (*FOLDS, "floor", "ceil", "trunc", "round", "convert", "wrap")
# Functions of the mathematics library: name → number of operands.
FUNCTIONS: Mapping[str, int] = {
    **dict.fromkeys(
        [
            "exp",
            "expm1",
            "exp2",
            "log",
            "log1p",
            "log2",
            "log10",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "erfc",
            "lgamma",
        ],
        1,
    ),
    **dict.fromkeys(("pow", "atan2", "hypot", "fmod"), 2),
}


class Program:
    """Values in the order of definition; equal values are one.

    Attributes:
        nodes: The values; operands come before their users.
        notes: What some values are, for readers who need not see how they are computed.
    """

    def __init__(self):
        self.nodes: list[Node] = []
        self.notes: dict[int, str] = {}
        self._known: dict[Node, int] = {}

    def constant(self, value: float | int | bool, dtype: str) -> int:
        """A literal, rounded to its type."""
        if dtype == F64:
            value = float(value)
        elif dtype == F32:
            with np.errstate(over="ignore"):
                value = float(np.float32(value))
        else:
            value = bool(value) if dtype == BOOL else _wrapped(value)
        # As text, so that 0.0 and -0.0 stay apart and nan is equal to itself.
        return self._enter(Node("constant", dtype, (), repr(value)))

    def input(self, dtype: str, slot: int, element: int | None, size: int = 1) -> int:
        """An element of an argument, or all of them."""
        return self._enter(Node("input", dtype, (), (slot, element), size))

    def value(self, index: int) -> float | int | bool | None:
        """The number of a constant, None for other values."""
        node = self.nodes[index]
        if node.op != "constant":
            return None
        return (
            float(node.data)
            if node.dtype in FLOATS
            else {"True": True, "False": False}.get(node.data)
            if node.dtype == BOOL
            else int(node.data)
        )

    def emit(
        self, op: str, dtype: str, *args: int, data: object = None, size: int | None = None
    ) -> int:
        """The value of an operation, simplified where that changes no bit of the result."""
        if op in COMMUTATIVE and args[0] > args[1]:
            args = (args[1], args[0])
        numbers = [self.value(a) for a in args]
        folded = self._fold(op, dtype, args, numbers, data)
        if folded is not None:
            return folded
        simplify = SIMPLIFICATIONS.get(op)
        if simplify is not None:
            simple = simplify(self, dtype, args, numbers)
            if simple is not None:
                return simple
        if size is None:
            size = 1 if op in WIDE_OPS else max((self.nodes[a].size for a in args), default=1)
        return self._enter(Node(op, dtype, args, data, size))

    def convert(self, index: int, dtype: str) -> int:
        """The value in another type; numbers to bool are true unless zero."""
        node = self.nodes[index]
        if node.dtype == dtype:
            return index
        number = self.value(index)
        if number is not None and not (dtype == I64 and not math.isfinite(number)):
            return self.constant(int(number) if dtype == I64 else number, dtype)
        if dtype == BOOL:
            return self.emit("ne", BOOL, index, self.constant(0, node.dtype))
        return self._enter(Node("convert", dtype, (index,), None, node.size))

    def inverse(self, index: int) -> int:
        """The negation of a bool."""
        return self.emit("not", BOOL, index)

    def rewrite(self, roots: Sequence[int], replaced: Mapping[int, int]) -> list[int]:
        """Values of roots after some values have been replaced by others."""
        new = dict(replaced)
        # What was defined before the first of them depends on none.
        first = min(replaced, default=len(self.nodes))
        for index in self.needed(roots, stop=replaced, since=first):
            if index in new:
                continue
            op, dtype, args, data, size = self.nodes[index]
            changed = tuple([new.get(a, a) for a in args])
            if changed == args:
                found = index
            elif op == "convert":
                found = self.convert(changed[0], dtype)
            else:
                kept = size if op in WIDE_OPS else None
                found = self.emit(op, dtype, *changed, data=data, size=kept)
            # What has become one of the replaced values is replaced too.
            new[index] = replaced.get(found, found)
        return [new.get(root, root) for root in roots]

    def needed(self, roots: Iterable[int], stop: Iterable[int] = (), since: int = 0) -> list[int]:
        """Values from `since` on that roots depend on, operands first; not beyond `stop`."""
        seen: set[int] = set()
        stop = set(stop)
        pending = list(roots)
        while pending:
            index = pending.pop()
            if index >= since and index not in seen:
                seen.add(index)
                if index not in stop:
                    pending.extend(self.nodes[index].args)
        return sorted(seen)

    def _enter(self, node: Node) -> int:
        index = self._known.get(node)
        if index is None:
            if len(self.nodes) >= 3 * MOST_OPERATIONS:
                raise UnfitError(
                    f"one step is more than {MOST_OPERATIONS} operations on single numbers"
                )
            index = self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return index

    def _fold(
        self, op: str, dtype: str, args: tuple[int, ...], numbers: list, data: Any
    ) -> int | None:
        if any(number is None for number in numbers):
            return None
        if op == "wrap":
            return self.constant(_wrapped(numbers[0], data), I64)
        if op not in FOLDS:
            return None
        return self.constant(FOLDS[op](*numbers), dtype)


def _simplify_add(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
    # x + 0.0 is not x where x is -0.0.
    for number, other in zip(numbers, reversed(args), strict=True):
        if number is not None and number == 0 and (dtype == I64 or math.copysign(1.0, number) < 0):
            return other
    return None


def _simplify_sub(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
    if (
        numbers[1] is not None
        and numbers[1] == 0
        and (dtype == I64 or math.copysign(1.0, numbers[1]) > 0)
    ):
        return args[0]
    return None


def _simplify_mul(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
    for number, other in zip(numbers, reversed(args), strict=True):
        if number is not None and number == 1:
            return other
        if number is not None and number == 0 and dtype == I64:
            return p.constant(0, I64)
    return None


def _simplify_div(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
    return args[0] if numbers[1] is not None and numbers[1] == 1 else None


def _simplify_twice(op: str) -> Callable:
    def simplify(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
        node = p.nodes[args[0]]
        return node.args[0] if node.op == op else None

    return simplify


def _simplify_junction(op: str) -> Callable:
    """And, or: of bools; of integers only where both are the same."""
    neutral = op == "and"

    def simplify(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
        if args[0] == args[1]:
            return args[0]
        if dtype != BOOL:
            return None
        for number, other in zip(numbers, reversed(args), strict=True):
            if number is not None:
                return other if number == neutral else p.constant(not neutral, BOOL)
        if args[0] == p.inverse(args[1]):
            return p.constant(not neutral, BOOL)
        return None

    return simplify


def _simplify_comparison(op: str) -> Callable:
    """Equality of bools, and of a selection of constants with a constant."""

    def simplify(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
        kind = p.nodes[args[0]].dtype
        for number, other in zip(numbers, reversed(args), strict=True):
            if number is None:
                continue
            if kind == BOOL:
                return other if number == (op == "eq") else p.inverse(other)
            node = p.nodes[other]
            if node.op == "convert" and p.nodes[node.args[0]].dtype == BOOL and number in (0, 1):
                return node.args[0] if (number == 1) == (op == "eq") else p.inverse(node.args[0])
            if node.op == "select" and kind == I64:
                constant = p.constant(number, kind)
                condition, a, b = node.args
                first, second = p.value(a), p.value(b)
                if first is not None or second is not None:
                    return p.emit(
                        "select",
                        BOOL,
                        condition,
                        p.emit(op, BOOL, a, constant),
                        p.emit(op, BOOL, b, constant),
                    )
        return None

    return simplify


def _simplify_select(p: Program, dtype: str, args: tuple, numbers: list) -> int | None:
    condition, a, b = args
    if numbers[0] is not None:
        return a if numbers[0] else b
    if a == b:
        return a
    node = p.nodes[condition]
    if node.op == "not":
        return p.emit("select", dtype, node.args[0], b, a)
    if dtype == BOOL:
        if numbers[1] is not None:
            return (
                p.emit("or", BOOL, condition, b)
                if numbers[1]
                else p.emit("and", BOOL, p.inverse(condition), b)
            )
        if numbers[2] is not None:
            return (
                p.emit("or", BOOL, p.inverse(condition), a)
                if numbers[2]
                else p.emit("and", BOOL, condition, a)
            )
    inner_a, inner_b = p.nodes[a], p.nodes[b]
    if inner_a.op == "select" and inner_a.args[0] == condition:
        return p.emit("select", dtype, condition, inner_a.args[1], b)
    if inner_b.op == "select" and inner_b.args[0] == condition:
        return p.emit("select", dtype, condition, a, inner_b.args[2])
    return None


SIMPLIFICATIONS: Mapping[str, Callable] = {
    "add": _simplify_add,
    "sub": _simplify_sub,
    "mul": _simplify_mul,
    "div": _simplify_div,
    "neg": _simplify_twice("neg"),
    "not": _simplify_twice("not"),
    "and": _simplify_junction("and"),
    "or": _simplify_junction("or"),
    "eq": _simplify_comparison("eq"),
    "ne": _simplify_comparison("ne"),
    "select": _simplify_select,
}
