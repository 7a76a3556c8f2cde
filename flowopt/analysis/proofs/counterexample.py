"""Points at which an energy rises, searched with fixed random numbers and then verified."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import sympy
from scipy.optimize import minimize

from flowopt.analysis.proofs.facts import Facts, Values
from flowopt.symbolic.functions import total
from flowopt.symbolic.language import t

POINTS = 20_000
SEED = 0
# Roots and differences are re-evaluated to so many digits.
DIGITS = 40
CLIMB = 200
# Of a batch of hyperparameters, so many members are searched.
MOST_MEMBERS = 64
# Significant digits of the numbers of a point, simple ones first.
ROUNDINGS = (1, 2, 3, 6, 15)


@dataclass(frozen=True)
class Counterexample:
    """A state of one element at which a rate is positive.

    Attributes:
        values: Name → value, hyperparameters included.
        rate: The energy's rate there.
    """

    values: Mapping[str, float]
    rate: float


def counterexample(rate: sympy.Expr, facts: Facts) -> Counterexample | None:
    """A state of the flow at which its energy rises, if one is found.

    Every loss and gradient may occur at a point, so g, L and products with derivatives of the loss
    are free; variables respect what is known of them.

    Args:
        rate: For one element.
        facts: Of the flow.
    """
    solved = {u: 1 - sympy.exp(-r * t) for u, r in facts.known.relaxing.items()}
    for member in facts.members[:MOST_MEMBERS]:
        settings = {s: v for s, v in member.items() if v.is_finite}
        local = rate.xreplace(solved).xreplace(settings)
        free = sorted(local.free_symbols, key=str)
        if free and any(value in local.free_symbols for value in member):
            continue
        found = _search(local, free, facts)
        if found is not None:
            point = {**found, **settings}
            point |= {u: f.xreplace(point) for u, f in solved.items() if rate.has(u)}
            value = sympy.N(local.xreplace(found), 15)
            return Counterexample(
                {s.name: float(v) for s, v in point.items() if rate.has(s) or s == t},
                float(value),
            )
    return None


def for_one_element(formula: sympy.Expr) -> sympy.Expr:
    """A formula in which sums over elements have one term."""
    return formula.replace(lambda e: isinstance(e, total), lambda e: e.args[0])


def _search(local: sympy.Expr, free: list[sympy.Symbol], facts: Facts) -> Values | None:
    parts = sympy.Add.make_args(sympy.expand(local))
    # Relative to the size of the terms a rate has no unit.
    size = sympy.Add(*map(sympy.Abs, parts))
    functions = [sympy.lambdify(free, f, "numpy") for f in (local, size)]

    def height(point: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(all="ignore"):
            value, scale = (f(*point) + 0.0 * sum(point) for f in functions)
            result = value / scale
        return numpy.where(numpy.isfinite(result), result, -1.0)

    points = _random_points(free, facts)
    heights = height(points) if free else numpy.array([])
    order = numpy.argsort(-heights, kind="stable")[:2]
    for index in order:
        point = points[:, index]
        for candidate in (point, _climbed(point, height)):
            found = _verified(candidate, local, free)
            if found is not None:
                return found
    return None


def _random_points(free: list[sympy.Symbol], facts: Facts) -> numpy.ndarray:
    """Magnitudes over ten decades, some zeros, signs where a sign is free: (symbols, points)."""
    generator = numpy.random.default_rng(SEED)
    shape = (len(free), POINTS)
    sizes = 10.0 ** generator.uniform(-5, 5, shape)
    signs = generator.choice([-1.0, 1.0], shape)
    zeros = generator.uniform(size=shape) < 0.2
    positive = numpy.array([facts.known.knows(s) for s in free], dtype=bool)[:, None]
    return numpy.where(positive, sizes, numpy.where(zeros, 0.0, sizes * signs))


def _climbed(point: numpy.ndarray, height) -> numpy.ndarray:
    """A higher point nearby; coordinates keep their signs."""
    signs = numpy.sign(point)

    def depth(logarithms: numpy.ndarray) -> float:
        return -float(height(signs * numpy.exp(logarithms)))

    start = numpy.log(numpy.where(point == 0, 1.0, numpy.abs(point)))
    return signs * numpy.exp(
        minimize(depth, start, method="Nelder-Mead", options={"maxiter": CLIMB}).x
    )


def _verified(point: numpy.ndarray, local: sympy.Expr, free: list[sympy.Symbol]) -> Values | None:
    """The simplest rounding of a point at which the rate is positive beyond doubt."""
    for digits in ROUNDINGS:
        rounded = {
            s: sympy.Rational(f"{float(x):.{digits}g}") for s, x in zip(free, point, strict=True)
        }
        value = local.xreplace(rounded)
        if value.is_finite is False or value.has(sympy.nan, sympy.zoo):
            continue
        number = sympy.N(value, DIGITS, maxn=10 * DIGITS)
        if number.is_real and number.is_Number and number > sympy.Float(10) ** (-DIGITS // 2):
            return rounded
    return None
