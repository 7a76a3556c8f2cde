"""Numbers of a scalar program, written like numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from flowopt.kernels.program import BOOL, F32, F64, FLOATS, FUNCTIONS, I64, Program, UnfitError

DTYPES = {
    torch.float64: F64,
    torch.float32: F32,
    torch.int64: I64,
    torch.int32: I64,
    torch.int16: I64,
    torch.int8: I64,
    torch.bool: BOOL,
}
FLOAT_ONLY = {*FUNCTIONS, "div", "sqrt", "floor", "ceil", "trunc", "round"}
BITS = {torch.int32: 32, torch.int16: 16, torch.int8: 8}


def scalar_dtype(dtype: torch.dtype) -> str:
    """The type in which a tensor's numbers are computed."""
    if dtype not in DTYPES:
        raise UnfitError(f"numbers of type {dtype} have no scalar form")
    return DTYPES[dtype]


class Scalar:
    """A value of a program with Python's operators; Python numbers take its type."""

    __slots__ = ("index", "program")

    def __init__(self, program: Program, index: int):
        self.program = program
        self.index = index

    @property
    def dtype(self) -> str:
        """Type of the value."""
        return self.program.nodes[self.index].dtype

    def like(self, number: Scalar | float | int | bool) -> Scalar:
        """A number as a constant of the same type."""
        if isinstance(number, Scalar):
            return number
        return Scalar(self.program, self.program.constant(number, self.dtype))

    def to(self, dtype: str) -> Scalar:
        """The value in another type."""
        return Scalar(self.program, self.program.convert(self.index, dtype))

    def op(self, name: str, *others: Scalar | float, dtype: str | None = None) -> Scalar:
        """A row of the scalar operations with this value as first operand."""
        if name in FLOAT_ONLY and not self.floating:
            raise UnfitError(f"{name} of whole numbers has no scalar form")
        operands = [self.index, *(self.like(other).index for other in others)]
        return Scalar(self.program, self.program.emit(name, dtype or self.dtype, *operands))

    def __add__(self, other):
        return self.op("or" if self.dtype == BOOL else "add", other)

    def __radd__(self, other):
        return self.like(other) + self

    def __sub__(self, other):
        return self.op("sub", other)

    def __rsub__(self, other):
        return self.like(other) - self

    def __mul__(self, other):
        return self.op("and" if self.dtype == BOOL else "mul", other)

    def __rmul__(self, other):
        return self.like(other) * self

    def __truediv__(self, other):
        return self.op("div", other)

    def __rtruediv__(self, other):
        return self.like(other) / self

    def __neg__(self):
        return self.op("neg")

    def __abs__(self):
        return self.op("abs")

    def __and__(self, other):
        return self.op("and", other)

    def __or__(self, other):
        return self.op("or", other)

    def __xor__(self, other):
        return self.op("ne", other) if self.dtype == BOOL else self.op("xor", other)

    def __invert__(self):
        return self.op("not") if self.dtype == BOOL else self.op("xor", -1)

    def __lt__(self, other):
        return self.op("lt", other, dtype=BOOL)

    def __le__(self, other):
        return self.op("le", other, dtype=BOOL)

    def __gt__(self, other):
        return self.like(other).op("lt", self, dtype=BOOL)

    def __ge__(self, other):
        return self.like(other).op("le", self, dtype=BOOL)

    def equals(self, other: Scalar | float) -> Scalar:
        """Whether the values are equal; NaN is not."""
        return self.op("eq", other, dtype=BOOL)

    def differs(self, other: Scalar | float) -> Scalar:
        """Whether the values are not equal; NaN is not."""
        return self.op("ne", other, dtype=BOOL)

    def where(self, yes: Scalar, no: Scalar | float) -> Scalar:
        """One of two values, chosen by this bool."""
        index = self.program.emit("select", yes.dtype, self.index, yes.index, yes.like(no).index)
        return Scalar(self.program, index)

    @property
    def floating(self) -> bool:
        """Whether the type is a floating-point one."""
        return self.dtype in FLOATS


def call(name: str) -> Callable[..., Scalar]:
    """A row of the scalar operations as a function."""
    return lambda first, *rest: first.op(name, *rest)


def maximum(a: Scalar, b: Scalar | float) -> Scalar:
    """The larger, NaN if one is."""
    b = a.like(b)
    return ((b < a) | a.differs(a)).where(a, b)


def minimum(a: Scalar, b: Scalar | float) -> Scalar:
    """The smaller, NaN if one is."""
    b = a.like(b)
    return ((a < b) | a.differs(a)).where(a, b)


def power(base: Scalar, exponent: Scalar | float) -> Scalar:
    """A power, by torch's own special cases, so that small ones agree in every bit."""
    if isinstance(exponent, Scalar):
        number = exponent.program.value(exponent.index)
        return base.op("pow", exponent) if number is None else power(base, number)
    if not base.floating:
        if exponent != int(exponent) or not 0 <= exponent <= 8:
            raise UnfitError(f"a whole number to the power {exponent} has no scalar form")
        result = base.like(1)
        for _ in range(int(exponent)):
            result = result * base
        return result
    special: dict[float, Callable[[], Scalar]] = {
        0.0: lambda: base.like(1.0),
        1.0: lambda: base,
        2.0: lambda: base * base,
        3.0: lambda: base * base * base,
        0.5: lambda: base.op("sqrt"),
        -0.5: lambda: 1.0 / base.op("sqrt"),
        -1.0: lambda: 1.0 / base,
        -2.0: lambda: 1.0 / (base * base),
    }
    rule = special.get(float(exponent))
    return rule() if rule else base.op("pow", float(exponent))


def sign(x: Scalar) -> Scalar:
    """-1, 0 or 1; NaN stays NaN as in torch's derivative, 0 as in its value."""
    return (x > 0).where(x.like(1), (x < 0).where(x.like(-1), 0))


def remainder(a: Scalar, b: Scalar) -> Scalar:
    """Python's modulus."""
    rest = a.op("fmod", b)
    opposite = rest.differs(0.0) & ((rest < 0) ^ (b < 0))
    return opposite.where(rest + b, rest)


def softplus(x: Scalar, beta: float, threshold: float) -> Scalar:
    """log(1 + exp(βx))/β, x itself beyond the threshold."""
    scaled = x * beta
    return (scaled > threshold).where(x, scaled.op("exp").op("log1p") / beta)


def sigmoid(x: Scalar) -> Scalar:
    """1/(1 + exp(-x))."""
    return 1.0 / (1.0 + (-x).op("exp"))


def gelu(x: Scalar, approximate: str) -> Scalar:
    """X Φ(x), or its approximation by tanh."""
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + inner.op("tanh"))
    return 0.5 * x * (1.0 + (x * math.sqrt(0.5)).op("erf"))
