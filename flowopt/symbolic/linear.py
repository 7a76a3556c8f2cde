"""Linear equations solved exactly: x' = Mx + c + σ dW over a duration.

One variable relaxes by itself; several in which drivers come before what they drive (M triangular,
as in θ' = p, p' = −γp) have the matrix exponential as divided differences of exp, and so has the
covariance of their noise, since C' = MC + CMᵀ + σσᵀ is such a system again.

Reference:
    Opitz 1964, Z. Angew. Math. Mech. 44, T52; Sanz-Serna & Zygalakis 2021, J. Mach. Learn. Res.
    22(242).
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import sympy
from sympy.codegen.cfunctions import expm1

from flowopt.symbolic.functions import phi, phi1


def relaxed(
    variable: sympy.Symbol, drift: sympy.Expr, rate: sympy.Expr, duration: sympy.Expr
) -> sympy.Expr:
    """A variable after a duration, without noise; `rate` is its coefficient in its drift."""
    if rate == 0:
        return variable + drift * duration
    source = drift.xreplace({variable: sympy.S.Zero})
    growth = variable * sympy.exp(rate * duration)
    if source == 0:
        return growth
    target = sympy.factor_terms(source) / rate
    if _finite_at_zero(target, rate):
        return growth + target * expm1(rate * duration)
    return growth + source * duration * phi1(rate * duration)


def raised(
    variable: sympy.Symbol,
    factor: sympy.Expr,
    part: sympy.Expr,
    slope: sympy.Expr,
    duration: sympy.Expr,
) -> sympy.Expr:
    """Solution of x' = factor·max(0, s(x)): along it a linear s keeps its sign."""
    rate = factor * slope
    if _finite_at_zero(factor / rate, rate):
        return variable + factor / rate * expm1(rate * duration) * part
    return variable + factor * duration * phi1(rate * duration) * part


def spread(amplitude: sympy.Expr, rate: sympy.Expr, duration: sympy.Expr) -> sympy.Expr:
    """Standard deviation of ∫ σ e^{β(h−s)} dW."""
    if rate == 0:
        return amplitude * sympy.sqrt(duration)
    variance = amplitude**2 / (2 * rate)
    if _finite_at_zero(variance, rate):
        return sympy.sqrt(variance * expm1(2 * rate * duration))
    return amplitude * sympy.sqrt(duration * phi1(2 * rate * duration))


def _finite_at_zero(ratio: sympy.Expr, rate: sympy.Expr) -> bool:
    """Whether dividing by the rate cancelled, so that a rate of zero or infinity does no harm."""
    denominator = sympy.fraction(ratio)[1]
    return not denominator.free_symbols & rate.free_symbols


class NoClosedFormError(Exception):
    """The variables drive one another in a circle, or their rates are unrelated."""


@dataclass(frozen=True)
class LinearSystem:
    """Variables that drive one another, drivers first.

    Attributes:
        rates: Variable → its coefficient in its own drift.
        couplings: (driven, driver) → coefficient.
        sources: Variable → what its drift has without any variable.
        amplitudes: Wiener process → (the one variable that it drives, amplitude).
    """

    rates: Mapping[sympy.Symbol, sympy.Expr]
    couplings: Mapping[tuple, sympy.Expr]
    sources: Mapping[sympy.Symbol, sympy.Expr]
    amplitudes: Mapping[sympy.Symbol, tuple[sympy.Symbol, sympy.Expr]]

    def mean(self, duration: sympy.Expr) -> dict[sympy.Symbol, sympy.Expr]:
        """Every variable after a duration, without noise."""
        result = {}
        for variable, rate in self.rates.items():
            value = relaxed(variable, rate * variable + self.sources[variable], rate, duration)
            for path, weight in _paths(variable, self.couplings):
                if len(path) == 1:
                    continue
                nodes = [self.rates[x] * duration for x in path]
                scale = weight * duration ** (len(path) - 1)
                value += scale * divided_exponential(nodes) * path[-1]
                if self.sources[path[-1]] != 0:
                    held = divided_exponential([sympy.S.Zero, *nodes])
                    value += scale * duration * held * self.sources[path[-1]]
            result[variable] = value
        return result

    def noise(self, duration: sympy.Expr) -> dict[sympy.Symbol, list[tuple]]:
        """Variable → independent normals and their factors, which divide by no duration."""
        result: dict[sympy.Symbol, list[tuple]] = {variable: [] for variable in self.rates}
        for wiener, (first, amplitude) in self.amplitudes.items():
            depths = self._depths(first)
            normals = [wiener, *(_another(wiener, v) for v in list(depths)[1:])]
            for variable, row in self._cholesky(first, depths, duration).items():
                size = amplitude * duration ** (depths[variable] + sympy.S.Half)
                factors = [size * entry for entry in row]
                if variable == first:
                    factors = [spread(amplitude, self.rates[first], duration)]
                result[variable] += zip(normals, factors, strict=False)
        return {variable: pairs for variable, pairs in result.items() if pairs}

    def _depths(self, first: sympy.Symbol) -> dict[sympy.Symbol, int]:
        """What a variable drives, itself first, and through how many couplings at least."""
        lengths = {
            variable: [len(p) - 1 for p, _ in _paths(variable, self.couplings) if p[-1] == first]
            for variable in self.rates
        }
        return {variable: min(found) for variable, found in lengths.items() if found}

    def _cholesky(
        self, first: sympy.Symbol, depths: Mapping[sympy.Symbol, int], duration: sympy.Expr
    ) -> dict[sympy.Symbol, list[sympy.Expr]]:
        """Rows of a factor of the covariance by unit noise on `first`.

        In units of durationᵈ⁺½ at depth d, in which it has a limit at duration zero.
        """
        rows: dict[sympy.Symbol, list[sympy.Expr]] = {}
        for variable in depths:
            row: list[sympy.Expr] = []
            for other in (*rows, variable):
                entry = sympy.S.Zero
                for path, weight in _paths((variable, other), self._pairs):
                    if path[-1] == (first, first):
                        nodes = [(self.rates[a] + self.rates[b]) * duration for a, b in path]
                        excess = len(path) - 1 - depths[variable] - depths[other]
                        held = divided_exponential([sympy.S.Zero, *nodes])
                        entry += weight * duration**excess * held
                above = rows.get(other, row)
                entry -= sum(a * b for a, b in zip(row, above, strict=False))
                row.append(sympy.sqrt(entry) if other == variable else entry / above[-1])
            rows[variable] = row
        return rows

    @cached_property
    def _pairs(self) -> dict[tuple, sympy.Expr]:
        """Couplings of second moments: (xᵢxⱼ)' = Σₖ mᵢₖ xₖxⱼ + mⱼₖ xᵢxₖ."""
        place = {variable: i for i, variable in enumerate(self.rates)}
        result: dict[tuple, sympy.Expr] = {}
        for pair in product(self.rates, repeat=2):
            for (driven, driver), coupling in self.couplings.items():
                for own, other in (pair, pair[::-1]):
                    if own == driven:
                        before = tuple(sorted((driver, other), key=place.__getitem__, reverse=True))
                        result[pair, before] = result.get((pair, before), 0) + coupling
        return result


def _paths(target: Hashable, couplings: Mapping[tuple, sympy.Expr]) -> Iterator[tuple]:
    """Every way to drive a target, from it backwards, and the product of the couplings."""
    yield (target,), sympy.S.One
    for (driven, driver), coupling in couplings.items():
        if driven == target:
            for path, weight in _paths(driver, couplings):
                yield (target, *path), coupling * weight


def _another(wiener: sympy.Symbol, variable: sympy.Symbol) -> sympy.Symbol:
    return sympy.Symbol(f"{wiener.name}_{variable.name}", real=True)


def divided_exponential(nodes: Sequence[sympy.Expr]) -> sympy.Expr:
    """Divided difference of exp at nodes that may coincide, in functions φₖ that lose no digits.

    With j nodes αᵢz besides k zeros it is that of x ↦ xʲ⁻¹ φₖ₊ⱼ₋₁(zx) at the αᵢ: what the series
    of φₖ has before that power, a difference of this order does not see.

    Raises:
        NoClosedFormError: The nodes' distances are no multiples of one another.
    """
    base = max(nodes, key=nodes.count)
    distances = [sympy.expand(node - base) for node in nodes if node != base]
    order, result, x = len(nodes) - 1, sympy.S.Zero, sympy.Dummy()
    if not distances:
        return sympy.exp(base) / sympy.factorial(order)
    ratios = [sympy.cancel(distance / distances[0]) for distance in distances]
    if not all(ratio.is_number for ratio in ratios):
        raise NoClosedFormError
    multiples = Counter(sympy.nsimplify(ratio, rational=ratio.has(sympy.Float)) for ratio in ratios)
    for multiple, count in multiples.items():
        rest = prod((x - m) ** n for m, n in multiples.items() if m != multiple)
        function = x ** (len(distances) - 1) * phi(order, x * distances[0]) / rest
        slope = function.diff(x, count - 1) if count > 1 else function
        result += slope.subs(x, multiple) / sympy.factorial(count - 1)
    result = result.replace(lambda e: isinstance(e, phi) and e.args[0] == 1, _first)
    return sympy.exp(base) * result


def _first(function: sympy.Expr) -> sympy.Expr:
    return phi1(function.args[1])


def linear_system(
    drifts: Mapping[sympy.Symbol, sympy.Expr],
    amplitudes: Mapping[sympy.Symbol, Mapping[sympy.Symbol, sympy.Expr]],
) -> LinearSystem:
    """The system of drifts and noise amplitudes that are linear in the variables they move.

    Raises:
        NoClosedFormError: A drift is not linear, noise is shared or not additive, or the variables
            drive one another in a circle.
    """
    couplings, rates, sources = {}, {}, {}
    for variable, drift in drifts.items():
        sources[variable] = drift.xreplace(dict.fromkeys(drifts, sympy.S.Zero))
        for other in drifts:
            slope = sympy.simplify(drift.diff(other)) if drift.has(other) else sympy.S.Zero
            if slope.has(*drifts):
                raise NoClosedFormError
            if other == variable:
                rates[variable] = slope
            elif slope != 0:
                couplings[variable, other] = slope
    owners: dict[sympy.Symbol, tuple] = {}
    for variable, own in amplitudes.items():
        for wiener, amplitude in own.items():
            if amplitude.has(*drifts) or wiener in owners:
                raise NoClosedFormError
            owners[wiener] = variable, amplitude
    ordered = _drivers_first(list(drifts), couplings)
    return LinearSystem({v: rates[v] for v in ordered}, couplings, sources, owners)


def _drivers_first(variables: list[sympy.Symbol], couplings: Collection) -> list[sympy.Symbol]:
    ordered: list[sympy.Symbol] = []
    while left := [v for v in variables if v not in ordered]:
        free = [v for v in left if not any((v, other) in couplings for other in left)]
        if not free:
            raise NoClosedFormError
        ordered += free
    return ordered
