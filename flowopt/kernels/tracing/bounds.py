"""Between which numbers a value lies, as far as its formula says: places that need no check."""

import math
from typing import NamedTuple

from flowopt.kernels.program import BOOL, FLOATS, I64, Program

# Whole numbers below it are exact as floats, and their sums do not wrap around.
EXACT = 2**52


class Bounds(NamedTuple):
    """A closed interval; a floating-point value may also be NaN."""

    low: float
    high: float


UNKNOWN = Bounds(-math.inf, math.inf)


def bounds(program: Program, index: int, known: dict[int, Bounds]) -> Bounds:
    """Lowest and highest value that a value can have.

    Args:
        program: All values.
        index: Of the value.
        known: What has been found before; what is found is added.
    """
    for value in program.needed([index], stop=known):
        if value not in known:
            known[value] = _of(program, value, known)
    return known[index]


def _of(program: Program, index: int, known: dict[int, Bounds]) -> Bounds:
    node, number = program.nodes[index], program.value(index)
    if number is not None:
        return UNKNOWN if math.isnan(number) else Bounds(number, number)
    operands = [known[a] for a in node.args]
    if node.dtype == BOOL:
        return Bounds(0, 1)
    if node.op == "select":
        yes, no = _chosen(program, node.args, known)
        return Bounds(min(yes.low, no.low), max(yes.high, no.high))
    if node.op == "convert":
        return _converted(program.nodes[node.args[0]].dtype, node.dtype, operands[0])
    if node.op in ("floor", "ceil", "trunc", "round") and all(map(math.isfinite, operands[0])):
        return Bounds(math.floor(operands[0].low), math.ceil(operands[0].high))
    if node.op == "add" and node.dtype == I64:
        total = Bounds(sum(o.low for o in operands), sum(o.high for o in operands))
        return total if max(map(abs, total)) < EXACT else UNKNOWN
    return UNKNOWN


def _chosen(
    program: Program, args: tuple[int, ...], known: dict[int, Bounds]
) -> tuple[Bounds, Bounds]:
    """Of the two values of a selection, given what its condition says of each."""
    condition, yes, no = program.nodes[args[0]], known[args[1]], known[args[2]]
    if condition.op not in ("lt", "le"):
        return yes, no
    less, more = condition.args
    # A comparison with NaN is false, and NaN is within all bounds.
    if args[2] == less:
        no = Bounds(max(no.low, known[more].low), no.high)
    if args[2] == more:
        no = Bounds(no.low, min(no.high, known[less].high))
    if args[1] == less:
        yes = Bounds(yes.low, min(yes.high, known[more].high))
    if args[1] == more:
        yes = Bounds(max(yes.low, known[less].low), yes.high)
    return yes, no


def _converted(before: str, after: str, operand: Bounds) -> Bounds:
    if max(map(abs, operand)) >= EXACT:
        return UNKNOWN
    if before in FLOATS and after == I64:
        # Towards zero; what is not a number becomes zero.
        return Bounds(min(math.trunc(operand.low), 0), max(math.trunc(operand.high), 0))
    return operand
