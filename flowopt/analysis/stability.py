"""When steps of a scheme on a quadratic loss stay bounded, and what they sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy
import sympy

from flowopt.analysis.linear_step import CURVATURE, knowledge_of, linear_step, with_decays
from flowopt.analysis.proofs.conditions import Condition, distinct, exact, minors, unknown_factors
from flowopt.analysis.proofs.signs import Knowledge
from flowopt.core.interfaces import Scheme
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.symbolic.energy import energy_of
from flowopt.symbolic.language import LOSS, STEP_SIZE, symbol, t, theta

h = sympy.Symbol("h", real=True, positive=True)
# The largest stable step is looked for between these, in units of 1/√k and 1/k together.
SMALLEST, LARGEST, GRID = 1e-4, 1e4, 4000
# Beyond two variables a radius this close to 1 is 1: rounding moves a double eigenvalue so.
ROUNDING = 1e-9


@dataclass(frozen=True)
class EnergyCondition:
    """When a discrete step lowers a quadratic energy from every state.

    Attributes:
        change: Symmetric matrix D with E(z⁺) − E(z) = zᵀDz.
        conditions: Together equivalent to D ≤ 0: all principal minors of −D that may be negative.
    """

    change: sympy.Matrix
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Stability:
    """A scheme on a linear flow, with L = kθ²/2: the step z → Mz + Nξ.

    Attributes:
        flow: The flow.
        scheme: The scheme.
        variables: The order of rows and columns.
        matrix: M, in h, k and the hyperparameters.
        noise: N, one column per standard normal.
        curvature: k, a symbol or a number.
        decays: Symbols for exponentials, as c = exp(−friction·h), in conditions and covariance.
        conditions: Stable iff all hold (strictly inside; at equality the radius is 1); empty where
            every step is stable. None beyond two variables, where `spectral_radius` decides.
        marginal: Whether the determinant is 1 at any step, so that nothing is damped.
        largest_step: The supremum of stable steps as a formula in k and the hyperparameters, where
            there is one; infinity where every step is stable.
    """

    flow: EquationFlow
    scheme: Scheme
    variables: tuple[sympy.Symbol, ...]
    matrix: sympy.Matrix
    noise: sympy.Matrix
    curvature: sympy.Expr
    decays: Mapping[sympy.Symbol, sympy.Expr]
    conditions: tuple[Condition, ...] | None
    marginal: bool
    largest_step: sympy.Expr | None

    def __str__(self) -> str:
        """Matrix, conditions, largest step."""
        names = ", ".join(v.name for v in self.variables)
        lines = [f"{self.flow.name}, {self.scheme!r}, on L = {self.curvature}*theta**2/2"]
        lines.append(f"  step of ({names}): {self.matrix.tolist()}")
        lines += [f"  {line}" for line in self.summary]
        return "\n".join(lines)

    @property
    def summary(self) -> tuple[str, ...]:
        """Conditions and largest step, a line each."""
        lines = []
        if self.largest_step is not None:
            bound = "any h" if self.largest_step == sympy.oo else f"h < {self.largest_step}"
            lines.append("never stable" if self.largest_step == 0 else f"stable for {bound}")
        elif self.conditions:
            lines.append(f"stable iff {' and '.join(map(str, self.conditions))}")
        if self.conditions and self.largest_step is None:
            used = set().union(*(c.margin.free_symbols for c in self.conditions))
            lines += [f"with {c} = {e}" for c, e in self.decays.items() if c in used]
        if self.marginal:
            lines.append("nothing is damped: the determinant is 1")
        return tuple(lines)

    @cached_property
    def _values(self) -> dict[sympy.Symbol, sympy.Expr]:
        values = {}
        for name, tensor in self.flow.hyperparameters.items():
            if tensor.ndim:
                raise CompatibilityError(
                    f"hyperparameter {name!r} has one value per trajectory: ask for one member, "
                    "flow.with_hyperparameters(...), at a time"
                )
            values[symbol(name)] = exact(float(tensor))
        return values

    @cached_property
    def _numbers(self):
        matrix = self.matrix.xreplace(self._values)
        return sympy.lambdify([h, CURVATURE], matrix, "numpy")

    def matrix_at(self, step_size: float, curvature: float | None = None) -> numpy.ndarray:
        """M as numbers, at the flow's hyperparameters."""
        k = self._curvature(curvature)
        return numpy.array(self._numbers(float(step_size), k), dtype=float)

    def _curvature(self, curvature: float | None) -> float:
        """A curvature as given, or that of the analysis."""
        k = self.curvature if curvature is None else curvature
        if not getattr(k, "is_number", True):
            raise CompatibilityError("the curvature is a symbol: give curvature=…")
        return _finite(float(k))

    def spectral_radius(self, step_size: float, curvature: float | None = None) -> float:
        """Largest size of an eigenvalue of M."""
        return float(abs(numpy.linalg.eigvals(self.matrix_at(step_size, curvature))).max())

    @property
    def eigenvalues(self) -> tuple[sympy.Expr, ...]:
        """Of M, for one or two variables."""
        if len(self.variables) == 1:
            return (self.matrix[0],)
        if len(self.variables) > 2:
            raise CompatibilityError("eigenvalues have formulas for up to two variables")
        half, product = self.matrix.trace() / 2, self.matrix.det()
        root = sympy.sqrt(half**2 - product)
        return half + root, half - root

    def largest_step_at(self, curvature: float | None = None) -> float:
        """The end of the first interval of stable steps, from 0 on, to nearly all digits.

        0 where small steps are not stable; infinity where none of 4000 steps over eight decades is
        unstable.
        """
        k = self._curvature(curvature)
        if k <= 0:
            # The conditions leave out what holds wherever k > 0.
            raise CompatibilityError(f"the largest step is that at a curvature > 0, got {k}")
        stable = SMALLEST * min(1.0 / k, k**-0.5)
        if not self._stable(stable, k):
            return 0.0
        for step in numpy.geomspace(stable, LARGEST * max(1.0 / k, k**-0.5), GRID):
            if not self._stable(float(step), k):
                return self._bisected(stable, float(step), k)
            stable = float(step)
        return float("inf")

    @cached_property
    def _margins(self):
        margins = sympy.Matrix([c.margin for c in self.conditions or ()])
        plain = margins.xreplace(dict(self.decays)).xreplace(self._values)
        return sympy.lambdify([h, CURVATURE], plain, "numpy")

    def _stable(self, step_size: float, curvature: float) -> bool:
        """By the conditions, whose signs are sharper than a radius beside 1."""
        if self.conditions is None:
            return self.spectral_radius(step_size, curvature) <= 1 + ROUNDING
        return not self.conditions or bool((self._margins(step_size, curvature) > 0).all())

    def _bisected(self, stable: float, unstable: float, k: float) -> float:
        while unstable - stable > 1e-15 * unstable:
            middle = (stable + unstable) / 2
            if middle in (stable, unstable):
                break
            if self._stable(middle, k):
                stable = middle
            else:
                unstable = middle
        return stable

    @cached_property
    def covariance(self) -> sympy.Matrix:
        """The stationary covariance Σ = MΣMᵀ + NNᵀ in h, k, hyperparameters and `decays`."""
        (matrix, spread), _ = with_decays(self.matrix, self.noise * self.noise.T)
        return _stationary(matrix, spread.applyfunc(sympy.together))

    def energy_condition(self, energy: str) -> EnergyCondition:
        """When a step lowers an energy from every state; noise left out.

        Args:
            energy: Name of a declared energy that is quadratic in the variables on L = kθ²/2.

        Raises:
            DefinitionError: The flow declares no such energy.
            CompatibilityError: The energy is not quadratic.
        """
        if self.flow.per_step:
            raise CompatibilityError(
                f"flow {self.flow.name!r} has {sorted(self.flow.per_step)} as rate × step size, "
                f"and energy {energy!r} needs rates in time: use flow.at_step_size(h)"
            )
        declared = energy_of(self.flow.equations, energy)
        whole = declared.density + declared.scalar.xreplace({LOSS: self.curvature * theta**2 / 2})
        form = sympy.hessian(whole, self.variables) / 2
        form = form.xreplace({s: sympy.S.Zero for s, v in self._values.items() if v == 0})
        if form.free_symbols & {*self.variables, t}:
            raise CompatibilityError(f"energy {energy!r} is not quadratic: {whole}")
        (matrix,), decays = with_decays(self.matrix)
        change = (matrix.T * form * matrix - form).applyfunc(sympy.expand)
        known = _known(self.flow, decays)
        return EnergyCondition(change.xreplace(decays), _not_positive(change, known))


def stability(flow: EquationFlow, scheme: Scheme, curvature: float | None = None) -> Stability:
    """What a scheme does to a flow that is linear on a quadratic loss L = kθ²/2.

    The scheme's own step runs on formulas, so the matrix is that of the code that runs.

    Args:
        flow: The flow.
        scheme: The scheme.
        curvature: k; a symbol where not given. For a loss in several dimensions, each eigenvalue
            of its Hessian by itself.

    Raises:
        CompatibilityError: The step is not linear on a quadratic, as for flows that scale with the
            gradient's history; or scheme and flow do not fit.

    Reference:
        Jury 1964, Theory and Application of the z-Transform Method; for Langevin words: Leimkuhler
        & Matthews 2013, Appl. Math. Res. Express 2013(1), 34.
    """
    variables, matrix, noise = linear_step(flow, scheme)
    k = CURVATURE if curvature is None else exact(_finite(float(curvature)))
    infinite = {
        symbol(n): sympy.oo for n, v in flow.hyperparameters.items() if bool(v.isinf().any())
    }
    matrix, noise = (_prepared(m, k, infinite) for m in (matrix, noise))
    (plain,), decays = with_decays(matrix)
    known = _known(flow, decays)
    conditions, marginal = _jury(plain, known)
    return Stability(
        flow=flow,
        scheme=scheme,
        variables=variables,
        matrix=matrix,
        noise=noise,
        curvature=k,
        decays=decays,
        conditions=conditions,
        marginal=marginal,
        largest_step=_largest_step(conditions, [c for c, e in decays.items() if e.has(h)]),
    )


def _finite(curvature: float) -> float:
    if not math.isfinite(curvature):
        raise CompatibilityError(f"a curvature is a finite number, got {curvature}")
    return curvature


def _known(flow: EquationFlow, decays: dict[sympy.Symbol, sympy.Expr]) -> Knowledge:
    outside = {c: e.xreplace({h: STEP_SIZE}) for c, e in decays.items()}
    return knowledge_of(flow, outside).with_nonnegative(h)


def _prepared(matrix: sympy.Matrix, k: sympy.Expr, infinite: Mapping) -> sympy.Matrix:
    """With h and k, and decays of infinite rates gone."""
    table = {e: sympy.S.Zero for e in matrix.atoms(sympy.exp) if e.free_symbols & set(infinite)}
    result = matrix.xreplace(table)
    if result.free_symbols & set(infinite):
        raise CompatibilityError(f"{', '.join(map(str, infinite))} is infinite, which has no limit")
    return result.xreplace({STEP_SIZE: h, CURVATURE: k})


def _jury(matrix: sympy.Matrix, known: Knowledge) -> tuple[tuple[Condition, ...] | None, bool]:
    """Conditions for eigenvalues inside the unit circle, those that always hold left out."""
    if matrix.rows == 1:
        margins = [1 - matrix[0], 1 + matrix[0]]
        return _strict(margins, known), matrix[0] == 1
    if matrix.rows > 2:
        return None, False
    trace, product = sympy.expand(matrix.trace()), sympy.expand(matrix.det())
    margins = [1 - trace + product, 1 + trace + product]
    marginal = sympy.expand(1 - product) == 0
    if not marginal:
        margins.append(1 - product)
    return _strict(margins, known), marginal


def _strict(margins: list[sympy.Expr], known: Knowledge) -> tuple[Condition, ...]:
    conditions = []
    for margin in margins:
        result, unknown = unknown_factors(margin, known)
        if result < 0 and not unknown:
            conditions.append(Condition(sympy.S.NegativeOne, strict=True))
        elif unknown:
            rest = sympy.Mul(*(factor for factor, _ in unknown))
            conditions.append(Condition(sympy.expand(result * rest), strict=True))
    return distinct(conditions)


def _largest_step(
    conditions: tuple[Condition, ...] | None, changing: list[sympy.Symbol]
) -> sympy.Expr | None:
    """The smallest step at which a condition fails, where formulas say."""
    if conditions is None:
        return None
    steps = []
    for condition in conditions:
        margin = condition.margin
        if margin.is_negative:
            return sympy.S.Zero
        if not margin.is_polynomial(h) or (changing and margin.has(*changing)):
            return None
        step = _first_root(margin)
        if step is None:
            return None
        steps.append(step)
    ratios = {sympy.simplify(step / steps[0]) for step in steps}
    if steps and not all(ratio.is_number for ratio in ratios):
        return None
    return steps[0] * min(ratios) if steps else sympy.oo


def _first_root(margin: sympy.Expr) -> sympy.Expr | None:
    """The first h at which a margin, positive at h = 0, vanishes; infinity if it never does."""
    x = sympy.Dummy("x", positive=True)
    scaled = sympy.expand(margin.xreplace({CURVATURE: x / h}))
    if scaled.free_symbols <= {x}:
        roots = [r for r in sympy.Poly(scaled, x).real_roots() if r.is_positive]
        if not roots:
            return sympy.oo
        first = roots[0]
        return (first if first.is_Rational else sympy.N(first, 15)) / CURVATURE
    positive = {s: sympy.Dummy(s.name, positive=True) for s in margin.free_symbols - {h}}
    back = {dummy: s for s, dummy in positive.items()}
    polynomial = margin.xreplace(positive)
    c, b, a = (polynomial.coeff(h, n) for n in (0, 1, 2))
    if sympy.degree(polynomial, h) > 2 or not (c.is_positive and a.is_nonpositive):
        return None
    if a == 0:
        root = -c / b if b.is_nonpositive else None
    else:
        root = (b + sympy.sqrt(b**2 - 4 * a * c)) / (-2 * a)
    return None if root is None else sympy.factor_terms(sympy.simplify(root)).xreplace(back)


def _stationary(matrix: sympy.Matrix, spread: sympy.Matrix) -> sympy.Matrix:
    """Solves Σ = MΣMᵀ + S."""
    size = matrix.rows
    entries = {(i, j): sympy.Dummy(f"s{i}{j}") for i in range(size) for j in range(i, size)}
    unknown = sympy.Matrix(size, size, lambda i, j: entries[min(i, j), max(i, j)])
    # Roots in the noise of letters that move jointly would take the solver out of the rationals.
    given = {
        place: sympy.Dummy() if _has_roots(spread[place]) else spread[place] for place in entries
    }
    equations = unknown - matrix * unknown * matrix.T
    equations -= sympy.Matrix(size, size, lambda i, j: given[min(i, j), max(i, j)])
    listed = [equations[i, j] for i, j in entries]
    solution = sympy.solve(listed, list(entries.values()), dict=True)
    if not solution:
        raise CompatibilityError("the step keeps no covariance: it is not stable at any step size")
    solved = {s: sympy.factor(e) for s, e in solution[0].items()}
    held = {name: spread[place] for place, name in given.items() if name != spread[place]}
    return unknown.xreplace(solved).xreplace(held)


def _has_roots(formula: sympy.Expr) -> bool:
    return any(not power.exp.is_Integer for power in formula.atoms(sympy.Pow))


def _not_positive(change: sympy.Matrix, known: Knowledge) -> tuple[Condition, ...]:
    """Conditions for a symmetric matrix ≤ 0: the principal minors whose sign is open."""
    conditions: dict[int, list[Condition]] = {}
    for minor, size in zip(minors(-change), _sizes(change.rows), strict=True):
        result, unknown = unknown_factors(minor, known)
        if result == 0 or (result > 0 and not unknown):
            continue
        rest = sympy.Mul(*(factor for factor, _ in unknown)) * result
        conditions.setdefault(size, []).append(Condition(sympy.expand(rest)))
    found = distinct(c for size in sorted(conditions) for c in conditions[size])
    never = [c for c in found if c.margin.is_negative]
    return tuple(never[:1]) or found


def _sizes(rows: int) -> list[int]:
    return [n for n in range(1, rows + 1) for _ in range(int(sympy.binomial(rows, n)))]
