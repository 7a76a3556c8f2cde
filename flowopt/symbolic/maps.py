"""The map of a letter: how one term moves the state over a duration.

*exact*   no moved variable enters its own drift except linearly;
*frozen*  the gradient, or another moved variable, is held at its value before the letter, and the
          rest is then solved exactly;
*euler*   the drift is held: x + f h, the choice that published rules such as AdamW's need.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import sympy
from sympy.codegen.cfunctions import expm1

from flowopt.errors import CompatibilityError
from flowopt.symbolic.language import LOSS, STEP_SIZE, Term, g, phi1, t, theta, total

Kind = Literal["exact", "frozen", "euler"]
KINDS = ("exact", "frozen", "euler")


@dataclass(frozen=True)
class LetterMap:
    """One letter as formulas in the variables before it and the full step size.

    Attributes:
        kind: Exact, frozen or euler.
        mean: Moved variable → value without noise.
        noise: Moved variable → (Wiener process, factor of a standard normal) pairs.
    """

    letter: str
    kind: Kind
    mean: dict[sympy.Symbol, sympy.Expr]
    noise: dict[sympy.Symbol, tuple[tuple[sympy.Symbol, sympy.Expr], ...]]

    @property
    def uses_gradient(self) -> bool:
        """Whether the map needs ∇L, or L, at the point before the letter."""
        return _uses_evaluation(
            (*self.mean.values(), *(a for n in self.noise.values() for _, a in n))
        )

    @property
    def moves_position(self) -> bool:
        """Whether the letter moves θ."""
        return theta in self.mean


def _uses_evaluation(formulas: Collection[sympy.Expr]) -> bool:
    return any(f.has(g, LOSS) for f in formulas)


def natural_kind(term: Term) -> Kind:
    """Exact if nothing that the letter moves is held while it moves, else frozen."""
    moved = set(term.moved)
    for variable in term.moved:
        for formula in (
            term.drift.get(variable, sympy.S.Zero),
            *term.amplitudes(variable).values(),
        ):
            bare, held = _hold_totals(formula)
            others = {*bare.free_symbols, *(s for c in held.values() for s in c.free_symbols)}
            in_total = any(call.free_symbols & moved for call in held.values())
            along_path = theta in moved and _uses_evaluation([formula])
            if others & (moved - {variable}) or t in others or in_total or along_path:
                return "frozen"
    return "exact"


def _hold_totals(formula: sympy.Expr) -> tuple[sympy.Expr, dict[sympy.Symbol, sympy.Expr]]:
    """The formula with each `total` replaced by a symbol, and what the symbols stand for."""
    names: dict[sympy.Expr, sympy.Symbol] = {}
    bare = formula.replace(
        lambda e: isinstance(e, total), lambda e: names.setdefault(e, sympy.Dummy(real=True))
    )
    held: dict[sympy.Symbol, sympy.Expr] = {}
    for call, name in names.items():
        # Sums within sums come first.
        held[name] = call.xreplace(held)
    return bare, held


def letter_map(
    term: Term, kind: Kind | None, fraction: sympy.Rational, per_step: Collection[str]
) -> LetterMap:
    """The map of a term over a fraction of a step.

    Args:
        term: The term.
        kind: "euler" to hold the drift; None for the best that there is.
        fraction: Share of the step that the letter covers.
        per_step: Hyperparameters whose values are rate × step size, free of unit: the step size
            cancels, so that nothing is divided by a learning rate of zero.

    Raises:
        CompatibilityError: A variable enters its own drift nonlinearly, so there is no closed form.
    """
    natural = natural_kind(term)
    if kind == "exact" and natural != "exact":
        raise CompatibilityError(
            f"letter {term.letter!r} has no exact map, since its own motion changes what its drift "
            "depends on: leave the choice out ('frozen') or take 'euler'"
        )
    kind = kind or natural
    duration = fraction * STEP_SIZE
    mean, noise = {}, {}
    for variable in term.moved:
        drift, held = _hold_totals(_per_step(term.drift.get(variable, sympy.S.Zero), per_step))
        amplitudes = {w: _per_step(a, per_step) for w, a in term.amplitudes(variable).items()}
        if kind == "euler":
            rate = sympy.S.Zero
        else:
            rate = _linear_rate(term, variable, drift, amplitudes)
        mean[variable] = _mean(variable, drift, rate, duration).xreplace(held)
        spreads = ((w, _spread(a, rate, duration).xreplace(held)) for w, a in amplitudes.items())
        noise[variable] = tuple(spreads)
    _check_shared_noise(term, noise)
    return LetterMap(term.letter, kind, mean, {v: n for v, n in noise.items() if n})


def _per_step(formula: sympy.Expr, names: Collection[str]) -> sympy.Expr:
    return formula.xreplace({s: s / STEP_SIZE for s in formula.free_symbols if s.name in names})


def _linear_rate(
    term: Term, variable: sympy.Symbol, drift: sympy.Expr, amplitudes: dict
) -> sympy.Expr:
    """The coefficient of a variable in its own drift."""
    rate = drift.diff(variable)
    if rate.has(variable):
        rate = sympy.simplify(rate)
    if rate.has(variable) or any(a.has(variable) for a in amplitudes.values()):
        raise CompatibilityError(
            f"letter {term.letter!r}: {variable.name!r} enters its own equation nonlinearly "
            f"({term.drift.get(variable, 0)}), so its flow has no closed form here: choose "
            f"Splitting(word, maps={{{term.letter!r}: 'euler'}}) or a Runge-Kutta scheme"
        )
    return rate


def _mean(
    variable: sympy.Symbol, drift: sympy.Expr, rate: sympy.Expr, duration: sympy.Expr
) -> sympy.Expr:
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


def _spread(amplitude: sympy.Expr, rate: sympy.Expr, duration: sympy.Expr) -> sympy.Expr:
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


def _check_shared_noise(term: Term, noise: dict) -> None:
    owners: dict[sympy.Symbol, sympy.Symbol] = {}
    for variable, pairs in noise.items():
        for wiener, _ in pairs:
            first = owners.setdefault(wiener, variable)
            linear = any(term.drift.get(v, sympy.S.Zero).has(v) for v in (first, variable))
            if first != variable and linear:
                raise CompatibilityError(
                    f"letter {term.letter!r}: {first.name!r} and {variable.name!r} share the noise "
                    f"{wiener.name!r} while one of them decays: their exact noise is correlated in "
                    "a way that one letter can not draw; give each its own dW1, dW2"
                )
