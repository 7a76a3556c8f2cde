"""Proofs that a formula is nowhere positive, made of steps that are each sound."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import sympy

from flowopt.analysis.proofs.conditions import Condition, minors, unknown_factors
from flowopt.analysis.proofs.relaxation import at_most
from flowopt.analysis.proofs.signs import Knowledge, sign
from flowopt.symbolic.language import t

# Largest quadratic form whose principal minors are looked at.
LARGEST_FORM = 4
SIGNS = "every term is a product of squares and factors of known sign"


class NoProofError(Exception):
    """The rules do not reach the claim."""


@dataclass(frozen=True)
class Proof:
    """Why a formula is nowhere positive.

    Attributes:
        conditions: What it needs of the hyperparameters.
        steps: The argument.
    """

    conditions: tuple[Condition, ...]
    steps: tuple[str, ...]


class _Argument:
    """Collects the conditions and steps of a proof under way."""

    def __init__(
        self,
        known: Knowledge,
        parameters: frozenset[sympy.Symbol],
        roots: Mapping[sympy.Symbol, sympy.Symbol],
    ):
        self.known = known
        self.roots = roots
        self.parameters = parameters
        self.conditions: list[Condition] = []
        self.steps: list[str] = []

    def say(self, step: str) -> None:
        if step not in self.steps:
            self.steps.append(step)

    def need(self, condition: Condition) -> None:
        if condition not in self.conditions:
            self.conditions.append(condition)

    def scalar_is_not_negative(self, formula: sympy.Expr) -> None:
        """A formula of hyperparameters, t and relaxing variables is ≥ 0, under conditions."""
        result, unknown = unknown_factors(formula, self.known)
        if result == 0 or (result > 0 and not unknown):
            return
        if len(unknown) != 1:
            raise NoProofError(f"the sign of {formula} is open")
        ((factor, _),) = unknown
        margin = result * factor.xreplace({r: sympy.sqrt(x) for r, x in self.roots.items()})
        if margin.free_symbols <= self.parameters:
            self.need(Condition(margin))
            return
        lemma = at_most(margin, self.known)
        if lemma is None:
            raise NoProofError(f"the sign of {margin} is open")
        self.need(lemma.condition)
        for step in lemma.steps:
            self.say(step)

    def form_is_not_positive(
        self, form: Mapping[tuple[int, ...], sympy.Expr], atoms: Sequence
    ) -> None:
        """A polynomial in atoms of any sign, exponents → coefficient, is ≤ 0."""
        least = [min(exponents[i] for exponents in form) // 2 * 2 for i in range(len(atoms))]
        form = {
            tuple(e - m for e, m in zip(exponents, least, strict=True)): coefficient
            for exponents, coefficient in form.items()
        }
        if all(e % 2 == 0 for exponents in form for e in exponents):
            for coefficient in form.values():
                self.scalar_is_not_negative(-coefficient)
            return
        for basis, matrix in _gram(form):
            if len(basis) > LARGEST_FORM:
                raise NoProofError("a quadratic form is too large")
            for minor in minors(-matrix):
                self.scalar_is_not_negative(minor)
            if len(basis) > 1:
                powers = [
                    sympy.Mul(*(a**e for a, e in zip(atoms, exponents, strict=True)))
                    for exponents in basis
                ]
                self.say(
                    f"the quadratic form in {', '.join(map(str, powers))}: minus its matrix has no "
                    "negative principal minor, so it is nowhere positive"
                )


def prove_not_positive(
    formula: sympy.Expr, known: Knowledge, parameters: frozenset[sympy.Symbol]
) -> Proof:
    """A proof that a formula is ≤ 0 wherever it has a value.

    Args:
        formula: In variables, hyperparameters and t; `total` sums over elements.
        known: Signs of its symbols.
        parameters: The hyperparameters, about which a proof may need conditions.

    Raises:
        NoProofError: The rules do not reach it.
    """
    if sign(formula, known) in (0, -1) or sign(sympy.expand_mul(formula), known) in (0, -1):
        zero = formula == 0
        return Proof((), ("it is zero" if zero else SIGNS,))
    numerator, denominator = sympy.fraction(sympy.together(formula))
    orientation = sign(denominator, known)
    if orientation not in (1, -1):
        raise NoProofError(f"the sign of the denominator {denominator} is open")
    polynomial, known, roots = _rational(orientation * numerator, known)
    argument = _Argument(known, parameters, roots)
    _polynomial_is_not_positive(argument, polynomial)
    if denominator != 1:
        argument.steps.insert(0, f"the denominator {denominator} is positive")
    if argument.steps:
        argument.say("all other terms are products of squares and factors of known sign")
    else:
        argument.say(SIGNS)
    return Proof(tuple(argument.conditions), tuple(argument.steps))


def _rational(
    formula: sympy.Expr, known: Knowledge
) -> tuple[sympy.Expr, Knowledge, dict[sympy.Symbol, sympy.Symbol]]:
    """A polynomial in symbols: roots and functions get symbols of their own."""
    rooted = {
        power.base
        for power in formula.atoms(sympy.Pow)
        if isinstance(power.base, sympy.Symbol) and power.exp.is_Rational and power.exp.q == 2
    }
    roots = {sympy.Dummy(f"root_{x.name}", nonnegative=True): x for x in sorted(rooted, key=str)}
    shares = frozenset(root for root, x in roots.items() if x in known.below_one)
    known = Knowledge(known.nonnegative | frozenset(roots), known.relaxing, known.shares | shares)
    bare, names = _named(formula, _opaque)
    signed = [symbol for part, symbol in names.items() if sign(part, known) in (0, 1)]
    bare = bare.xreplace({x: root**2 for root, x in roots.items()})
    return sympy.expand(bare), known.with_nonnegative(*signed), roots


def _opaque(part: sympy.Expr) -> bool:
    """Whether a proof takes a part as a whole, of which it knows the sign at most."""
    if part.is_Pow:
        whole = part.exp.is_Integer and part.exp.is_positive
        return not whole and not isinstance(part.base, sympy.Symbol)
    return isinstance(part, sympy.Function | sympy.Abs | sympy.Min | sympy.Max)


def _named(
    formula: sympy.Expr, chosen: Callable[[sympy.Expr], bool]
) -> tuple[sympy.Expr, dict[sympy.Expr, sympy.Symbol]]:
    """The formula with its outermost chosen parts as symbols."""
    names: dict[sympy.Expr, sympy.Symbol] = {}

    def walk(part: sympy.Expr) -> sympy.Expr:
        if chosen(part):
            return names.setdefault(part, sympy.Dummy(f"part{len(names)}", real=True))
        return part.func(*map(walk, part.args)) if part.args else part

    return walk(formula), names


def _polynomial_is_not_positive(argument: _Argument, polynomial: sympy.Expr) -> None:
    """Splits a polynomial by its factors of known sign; what is left are forms of any sign."""
    known = argument.known
    fixed = {*argument.parameters, *known.relaxing, t}
    fixed |= {root for root, x in argument.roots.items() if x in fixed}
    atoms = sorted(polynomial.free_symbols - fixed, key=str)
    if not atoms:
        argument.scalar_is_not_negative(-polynomial)
        return
    signed = [i for i, atom in enumerate(atoms) if known.knows(atom)]
    free = [i for i, atom in enumerate(atoms) if not known.knows(atom)]
    forms: dict[tuple, dict[tuple, sympy.Expr]] = {}
    for exponents, coefficient in sympy.Poly(polynomial, *atoms).terms():
        group = tuple(exponents[i] for i in signed)
        forms.setdefault(group, {})[tuple(exponents[i] for i in free)] = coefficient
    for form in forms.values():
        argument.form_is_not_positive(form, [atoms[i] for i in free])


def _gram(form: Mapping[tuple[int, ...], sympy.Expr]) -> list[tuple[list, sympy.Matrix]]:
    """The form as quadratic forms in monomials, one for each set of monomials that mix.

    Raises:
        NoProofError: A product is not one of two monomials whose squares occur.
    """
    basis = [tuple(e // 2 for e in x) for x in form if all(e % 2 == 0 for e in x)]
    matrix = sympy.zeros(len(basis), len(basis))
    place = {b: i for i, b in enumerate(basis)}
    for exponents, coefficient in form.items():
        if all(e % 2 == 0 for e in exponents):
            i = place[tuple(e // 2 for e in exponents)]
            matrix[i, i] = coefficient
            continue
        pairs = [
            (a, b)
            for a, b in combinations(basis, 2)
            if tuple(x + y for x, y in zip(a, b, strict=True)) == exponents
        ]
        if not pairs:
            raise NoProofError("a mixed term has no squares that could outweigh it")
        i, j = (place[x] for x in pairs[0])
        matrix[i, j] = matrix[j, i] = coefficient / 2
    blocks = matrix.connected_components()
    return [([basis[i] for i in block], matrix.extract(block, block)) for block in blocks]
