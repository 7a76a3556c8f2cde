"""Functions that are faster written out between the operations around them than called.

A call of the vector library saves all registers and waits; the processor interleaves what is
written out with its neighbours. For tanh, most of the work in small networks, that is twice as
fast.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from string import Template

from flowopt.kernels.program import F64

# exp(z) - 1 for |z| <= ln(2)/2 by its series: what is left out is below 2e-17 of it.
TERMS = 13
# ln 2 in two parts; products of the first with whole numbers up to 2**11 are exact.
LN2 = ("0x3FE62E42FEFA3800", "0x3D2EF35793C76730")
# Beyond it tanh is 1.
LARGEST = 20.0
# Adding it rounds to a whole number, which then stands in the last bits.
MAGIC = 1.5 * 2.0**52

# tanh(x) = t/(t + 2), t = exp(2|x|) - 1 = 2**n (exp(r) - 1) + (2**n - 1), 2|x| = n ln 2 + r.
TANH = Template("""\
define internal $V @tanh.v$n($V %x) alwaysinline nounwind memory(none) {
  %size = call $V @llvm.fabs.v${n}f64($V %x)
  %large = fcmp ogt $V %size, $largest
  %a = select $B %large, $V $largest, $V %size
  %z = fadd $V %a, %a
  %m = call $V @llvm.fmuladd.v${n}f64($V %z, $V $log2e, $V $magic)
  %n = fsub $V %m, $magic
  %n.minus = fneg $V %n
  %r.first = call $V @llvm.fmuladd.v${n}f64($V %n.minus, $V $high, $V %z)
  %r = call $V @llvm.fmuladd.v${n}f64($V %n.minus, $V $low, $V %r.first)
$series
  %square = fmul $V %r, %r
  %p = call $V @llvm.fmuladd.v${n}f64($V %square, $V %q2, $V %r)
  %bits = bitcast $V %m to $I
  %high = shl $I %bits, $shift
  %exponent = add $I %high, $one
  %scale = bitcast $I %exponent to $V
  %less = fsub $V %scale, $unit
  %t = call $V @llvm.fmuladd.v${n}f64($V %scale, $V %p, $V %less)
  %below = fadd $V %t, $two
  %ratio = fdiv $V %t, %below
  %result = call $V @llvm.copysign.v${n}f64($V %ratio, $V %x)
  ret $V %result
}""")
INTRINSICS: Mapping[str, int] = {"fabs": 1, "fmuladd": 3, "copysign": 2}


def _vector(kind: str, number: object, lanes: int) -> str:
    return "<" + ", ".join([f"{kind} {number}"] * lanes) + ">"


def _float(number: float, lanes: int) -> str:
    return _vector("double", f"{number:.17e}", lanes)


@lru_cache(maxsize=16)
def written_out(name: str, dtype: str, lanes: int) -> tuple[str, tuple[str, ...]] | None:
    """Name and text of a function of this file with what it declares, or None.

    Args:
        name: As in the program.
        dtype: Type of its operand.
        lanes: Of a vector.
    """
    if (name, dtype) != ("tanh", F64) or lanes < 2:
        return None
    kind = f"<{lanes} x double>"
    fused = f"call {kind} @llvm.fmuladd.v{lanes}f64"
    factors = {k: _float(1.0 / math.factorial(k), lanes) for k in range(2, TERMS + 1)}
    series = [
        f"  %q{TERMS - 1} = {fused}({kind} {factors[TERMS]}, {kind} %r, {kind} "
        f"{factors[TERMS - 1]})"
    ]
    for k in range(TERMS - 2, 1, -1):
        series.append(f"  %q{k} = {fused}({kind} %q{k + 1}, {kind} %r, {kind} {factors[k]})")
    text = TANH.substitute(
        V=kind,
        I=f"<{lanes} x i64>",
        B=f"<{lanes} x i1>",
        n=lanes,
        largest=_float(LARGEST, lanes),
        log2e=_float(math.log2(math.e), lanes),
        magic=_float(MAGIC, lanes),
        high=_vector("double", LN2[0], lanes),
        low=_vector("double", LN2[1], lanes),
        series="\n".join(series),
        shift=_vector("i64", 52, lanes),
        one=_vector("i64", 1023 << 52, lanes),
        unit=_float(1.0, lanes),
        two=_float(2.0, lanes),
    )
    declared = [
        f"{kind} @llvm.{intrinsic}.v{lanes}f64({', '.join([kind] * operands)})"
        for intrinsic, operands in INTRINSICS.items()
    ]
    return f"tanh.v{lanes}", (*(f"declare {d}" for d in declared), text)
