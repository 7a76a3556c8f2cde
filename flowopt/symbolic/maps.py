"""The map of a letter: how one term moves the state over a duration.

*exact*   no moved variable enters its own drift except linearly, and variables that drive one
          another do so linearly and in one direction (θ' = p, p' = −γp);
*frozen*  the gradient, another moved variable, a sum or a sign is held at its value before the
          letter, and the rest is then solved exactly;
*euler*   the drift is held: x + f h, the choice that published rules such as AdamW's need.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import sympy

from flowopt.errors import CompatibilityError
from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, STEP_SIZE, Term, g, t, theta
from flowopt.symbolic.linear import (
    LinearSystem,
    NoClosedFormError,
    linear_system,
    raised,
    relaxed,
    spread,
)

Kind = Literal["exact", "frozen", "euler"]
KINDS = ("exact", "frozen", "euler")
# What changes by leaps, or is one number for all elements, is held where it would move by itself.
HELD = (total, sympy.sign)


@dataclass(frozen=True)
class LetterMap:
    """One letter as formulas in the variables before it and the full step size.

    Attributes:
        kind: Exact, frozen or euler.
        mean: Moved variable → value without noise.
        noise: Moved variable → (Wiener process, factor of a standard normal) pairs.
    """

    letter: str
    kind: str
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
            bare, held = _hold(formula)
            others = {*bare.free_symbols, *(s for c in held.values() for s in c.free_symbols)}
            in_total = any(call.free_symbols & moved for call in held.values())
            along_path = theta in moved and _uses_evaluation([formula])
            if t in others or in_total or along_path:
                return "frozen"
    return "exact" if not _coupled(term) or _system(term, ()) is not None else "frozen"


def _coupled(term: Term) -> bool:
    """Whether a moved variable depends on another one."""
    return any(
        formula.free_symbols & set(term.moved) - {variable}
        for variable in term.moved
        for formula in (term.drift.get(variable, sympy.S.Zero), *term.amplitudes(variable).values())
    )


def _system(term: Term, per_step: Collection[str]) -> tuple[LinearSystem, dict] | None:
    """The linear system of a term whose variables drive one another, and the sums it holds."""
    bare, held = {}, {}
    for variable in term.moved:
        drift = _per_step(term.drift.get(variable, sympy.S.Zero), per_step)
        bare[variable], sums = _hold(drift)
        held |= sums
    amplitudes = {
        v: {w: _per_step(a, per_step) for w, a in term.amplitudes(v).items()} for v in term.moved
    }
    try:
        system = linear_system(bare, amplitudes)
        # Whether rates are related shows only in the solution.
        system.mean(STEP_SIZE)
        system.noise(STEP_SIZE)
    except NoClosedFormError:
        return None
    return system, held


def _hold(formula: sympy.Expr) -> tuple[sympy.Expr, dict[sympy.Symbol, sympy.Expr]]:
    """The formula with each `total` and `sign` as a symbol, and what the symbols stand for."""
    names: dict[sympy.Expr, sympy.Symbol] = {}
    bare = formula.replace(
        lambda e: isinstance(e, HELD), lambda e: names.setdefault(e, sympy.Dummy(real=True))
    )
    held: dict[sympy.Symbol, sympy.Expr] = {}
    for call, name in names.items():
        # Those within others come first.
        held[name] = call.xreplace(held)
    return bare, held


def letter_map(
    term: Term, kind: str | None, fraction: sympy.Rational, per_step: Collection[str]
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
    if natural != "exact" and (kind == "exact" or (kind is None and len(term.letter) > 1)):
        raise CompatibilityError(_no_exact_map(term))
    kind = kind or natural
    duration = fraction * STEP_SIZE
    joint = _system(term, per_step) if kind == "exact" and _coupled(term) else None
    if joint is not None:
        system, held = joint
        mean = {v: f.xreplace(held) for v, f in system.mean(duration).items()}
        noise = {v: tuple(n) for v, n in system.noise(duration).items()}
        return LetterMap(term.letter, kind, mean, noise)
    mean, noise = {}, {}
    for variable in term.moved:
        drift, held = _hold(_per_step(term.drift.get(variable, sympy.S.Zero), per_step))
        amplitudes = {w: _per_step(a, per_step) for w, a in term.amplitudes(variable).items()}
        part = None if kind == "euler" or amplitudes else _positive_part(variable, drift)
        if part is not None:
            mean[variable] = raised(variable, *part, duration).xreplace(held)
            continue
        rate = sympy.S.Zero
        if kind != "euler":
            rate = _linear_rate(term, variable, drift, amplitudes)
        mean[variable] = relaxed(variable, drift, rate, duration).xreplace(held)
        spreads = ((w, spread(a, rate, duration).xreplace(held)) for w, a in amplitudes.items())
        noise[variable] = tuple(spreads)
    _check_shared_noise(term, noise)
    return LetterMap(term.letter, kind, mean, {v: n for v, n in noise.items() if n})


def _no_exact_map(term: Term) -> str:
    if len(term.letter) > 1:
        return (
            f"letters {term.letter} have no joint map: they would have to be linear in what they "
            "move, without g where they move theta, and drive one another in one direction (as "
            "theta' = p, p' = -friction*p + noise); write them one by one"
        )
    return (
        f"letter {term.letter!r} has no exact map, since its own motion changes what its drift "
        "depends on: leave the choice out ('frozen') or take 'euler'"
    )


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


def _positive_part(
    variable: sympy.Symbol, drift: sympy.Expr
) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr] | None:
    """Factor, max(0, s) and slope of s where a drift is factor·max(0, s) with s linear."""
    factor, part = drift.as_independent(variable, as_Add=False)
    if not isinstance(part, sympy.Max) or sympy.S.Zero not in part.args or len(part.args) != 2:
        return None
    (inner,) = set(part.args) - {sympy.S.Zero}
    slope = inner.diff(variable)
    return None if slope == 0 or slope.has(variable) else (factor, part, slope)


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
