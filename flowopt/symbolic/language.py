"""The language in which flows are written: symbols, terms and equations."""

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import sympy

from flowopt.errors import DefinitionError
from flowopt.symbolic.functions import total

# Names that printed code, or the arguments of Flow and Flow.from_text, use already.
RESERVED = frozenset(
    {"torch", "dt", "step_size", "name", "per_step"}
    | {"phi", "phi1", "total", "laplacian", "curvature", "damped"}
)
CHANNEL = re.compile(r"dW(\d*|_\w+)")
LETTER = re.compile(r"[A-Z]")


def symbol(name: str) -> sympy.Symbol:
    """Symbol of a variable or hyperparameter.

    Args:
        name: A Python identifier that neither starts nor ends with an underscore.

    Raises:
        DefinitionError: The name can not be used in an equation.
    """
    # Printed code calls coefficients _c0 and the new value of m m_.
    outer = name.startswith("_") or name.endswith("_")
    if not name.isidentifier() or keyword.iskeyword(name) or outer:
        raise DefinitionError(
            f"{name!r} can not name a quantity: use a Python identifier that is no keyword and "
            "neither starts nor ends with an underscore"
        )
    if name in RESERVED:
        raise DefinitionError(f"{name!r} is reserved in equations: choose another name")
    return sympy.Symbol(name, real=True)


theta = symbol("theta")
p = symbol("p")
g = symbol("g")
t = symbol("t")
LOSS = symbol("L")
STEP_SIZE = sympy.Symbol("step_size", real=True, positive=True)

GIVEN = frozenset({g, t, LOSS})


def channel(name: str) -> sympy.Symbol:
    """Symbol of a Wiener process, `dW`, `dW1`, …: independent for every element."""
    return sympy.Symbol(name, real=True)


def is_channel(candidate: sympy.Symbol) -> bool:
    """Whether a symbol names a Wiener process."""
    return CHANNEL.fullmatch(candidate.name) is not None


def normalise(expression: object) -> sympy.Expr:
    """A sympy expression whose symbols are the language's own, whatever their assumptions were."""
    try:
        result = sympy.sympify(expression, strict=True)
    except sympy.SympifyError as error:
        raise DefinitionError(
            f"{expression!r} is no expression: use flowopt.symbols and sympy functions, "
            "or Flow.from_text for text"
        ) from error
    if not isinstance(result, sympy.Expr):
        raise DefinitionError(f"{expression!r} is a {type(result).__name__}, expected a formula")
    if result.has(sympy.I, sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise DefinitionError(f"{expression!r} is not a finite real formula")
    names = {
        old: channel(old.name) if is_channel(old) else symbol(old.name)
        for old in result.free_symbols
    }
    return result.xreplace(names)


def _symbol_of(key: sympy.Symbol | str) -> sympy.Symbol:
    if isinstance(key, str):
        return symbol(key)
    if isinstance(key, sympy.Symbol):
        return symbol(key.name)
    raise DefinitionError(f"{key!r} is no variable: use flowopt.symbols.symbol(name)")


def _formulas(table: Mapping) -> dict[sympy.Symbol, sympy.Expr]:
    if not isinstance(table, Mapping):
        raise DefinitionError(
            f"{table!r} is no table of formulas: give variable → formula, as in {{theta: -g}}"
        )
    return {_symbol_of(key): normalise(value) for key, value in table.items()}


def _with_channels(letter: str, table: Mapping) -> dict[sympy.Symbol, sympy.Expr]:
    """Amplitudes without a named Wiener process get one of their own."""
    formulas = {}
    for variable, amplitude in _formulas(table).items():
        named = any(is_channel(s) for s in amplitude.free_symbols)
        own = channel(f"dW_{letter}_{variable.name}")
        formulas[variable] = amplitude if named else amplitude * own
    return formulas


@dataclass(frozen=True, init=False)
class Term:
    """One additive part of a flow, named by a letter.

    dx = drift[x] dt + diffusion[x], for every moved variable x.

    Args:
        letter: One capital letter, by which splitting words name the term.
        drift: Moved variable → drift.
        diffusion: Moved variable → noise amplitude σ. An amplitude may name its Wiener processes
            (`sigma * dW1`); without a name it gets one of its own. Itô sense.

    Raises:
        DefinitionError: The letter, a variable or a formula is malformed.
    """

    letter: str
    drift: dict[sympy.Symbol, sympy.Expr]
    diffusion: dict[sympy.Symbol, sympy.Expr]

    def __init__(self, letter: str, drift: Mapping, diffusion: Mapping | None = None):
        """See the class."""
        if not isinstance(letter, str) or LETTER.fullmatch(letter) is None:
            raise DefinitionError(f"a term's letter is one of A…Z, got {letter!r}")
        object.__setattr__(self, "letter", letter)
        object.__setattr__(self, "drift", _formulas(drift))
        object.__setattr__(self, "diffusion", _with_channels(letter, diffusion or {}))
        if not self.moved:
            raise DefinitionError(f"term {letter!r} moves no variable: give it a drift")
        for variable in self.moved:
            if variable in GIVEN:
                raise DefinitionError(
                    f"term {letter!r} moves {variable.name!r}, which the problem provides: "
                    "name a variable of the method"
                )
            if is_channel(variable):
                raise DefinitionError(
                    f"term {letter!r} moves {variable.name!r}, which names a Wiener process: "
                    "name a variable of the method"
                )
        for variable, amplitude in self.diffusion.items():
            self._check_linear_in_noise(variable, amplitude)

    @property
    def moved(self) -> tuple[sympy.Symbol, ...]:
        """The variables that the term moves, in the order of their first mention."""
        return tuple(dict.fromkeys((*self.drift, *self.diffusion)))

    @property
    def formulas(self) -> tuple[sympy.Expr, ...]:
        """Its drifts and noises."""
        return (*self.drift.values(), *self.diffusion.values())

    def amplitudes(self, variable: sympy.Symbol) -> dict[sympy.Symbol, sympy.Expr]:
        """Wiener process → amplitude, for one moved variable."""
        formula = self.diffusion.get(variable, sympy.S.Zero)
        return {w: formula.diff(w) for w in sorted(formula.free_symbols, key=str) if is_channel(w)}

    def _check_linear_in_noise(self, variable: sympy.Symbol, amplitude: sympy.Expr) -> None:
        noise = [s for s in amplitude.free_symbols if is_channel(s)]
        without = amplitude.xreplace(dict.fromkeys(noise, sympy.S.Zero))
        slopes = [amplitude.diff(w) for w in noise]
        if without != 0 or any(slope.has(*noise) for slope in slopes):
            raise DefinitionError(
                f"term {self.letter!r}: the noise of {variable.name!r}, {amplitude}, "
                "is not linear in the Wiener processes"
            )


@dataclass(frozen=True)
class LaterStart:
    """A start at t > 0, for equations whose summed drift is singular at t = 0.

    Attributes:
        time: When, in hyperparameters and in `STEP_SIZE`, a constant first step (0 where a control
            chooses it): so early that θ has hardly moved.
        values: Variable → leading term of its series there, in t, g and hyperparameters.
    """

    time: sympy.Expr
    values: dict[sympy.Symbol, sympy.Expr]


@dataclass(frozen=True, init=False)
class Equations:
    """A flow as data: named additive terms, energies, start values and its source.

    Args:
        *terms: The terms; letters are distinct.
        energies: Name → candidate Lyapunov function. Elementwise expressions are summed over
            elements implicitly; `LOSS` is the loss.
        dissipations: Energy → what a control asks it to lose per time, where not minus its rate.
        start: Variable → value at the start, in terms of theta, g and hyperparameters; zero where
            not given.
        scalars: Variables that have one value per block of parameters instead of one per element.
        reference: Where the equation comes from.
        later_start: Where schemes begin that need the summed drift, if it is singular at t = 0
            (Adam's bias correction, Nesterov's 3/t).

    Raises:
        DefinitionError: The equations contradict each other or use what they may not.
    """

    terms: tuple[Term, ...]
    energies: dict[str, sympy.Expr] = field(default_factory=dict)
    start: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    scalars: tuple[sympy.Symbol, ...] = ()
    reference: str = ""
    later_start: LaterStart | None = None
    dissipations: dict[str, sympy.Expr] = field(default_factory=dict)

    def __init__(
        self,
        *terms: Term,
        energies: Mapping | None = None,
        start: Mapping | None = None,
        scalars: Iterable = (),
        reference: str = "",
        later_start: LaterStart | None = None,
        dissipations: Mapping | None = None,
    ):
        """See the class."""
        values = {
            "terms": terms,
            "energies": {name: normalise(value) for name, value in (energies or {}).items()},
            "start": _formulas(start or {}),
            "scalars": tuple(_symbol_of(s) for s in scalars),
            "reference": reference,
            "later_start": later_start,
            "dissipations": {name: normalise(f) for name, f in (dissipations or {}).items()},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_terms()
        self._check_names()

    @cached_property
    def variables(self) -> tuple[sympy.Symbol, ...]:
        """The position and every other variable that has one value per element."""
        moved = dict.fromkeys(v for term in self.terms for v in term.moved)
        return (theta, *(v for v in moved if v != theta and v not in self.scalars))

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names that only the user can give a value, sorted."""
        known = {*self.variables, *self.scalars, *GIVEN, STEP_SIZE}
        used = set().union(*(formula.free_symbols for formula in self._formulas()))
        return tuple(sorted(s.name for s in used - known if not is_channel(s)))

    def __hash__(self) -> int:
        """Equal equations share their compiled code."""
        return hash(self._texts)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        """Kept as text: the hash of a text is another one in another process."""
        others = self.energies, self.start, self.later_start, self.dissipations
        return (*map(str, self.terms), *map(str, others))

    def joined(self, letters: str) -> Term:
        """The sum of the terms of some letters, as one term."""
        terms = [term for term in self.terms if term.letter in letters]
        if len(terms) == 1:
            return terms[0]
        moved = dict.fromkeys(v for term in terms for v in term.moved)
        drift = {v: sympy.Add(*(term.drift.get(v, 0) for term in terms)) for v in moved}
        diffusion = {v: sympy.Add(*(term.diffusion.get(v, 0) for term in terms)) for v in moved}
        whole = object.__new__(Term)
        object.__setattr__(whole, "letter", letters)
        object.__setattr__(whole, "drift", drift)
        object.__setattr__(whole, "diffusion", {v: a for v, a in diffusion.items() if a != 0})
        return whole

    def replace(self, **changes: object) -> "Equations":
        """The same equations with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields.update(changes)
        return Equations(*fields.pop("terms"), **fields)

    def substitute(self, table: Mapping[sympy.Symbol, sympy.Expr]) -> "Equations":
        """Every formula with symbols replaced, as in g → g + λθ for a decayed loss."""
        terms = [
            Term(
                term.letter,
                {v: f.xreplace(table) for v, f in term.drift.items()},
                {v: f.xreplace(table) for v, f in term.diffusion.items()},
            )
            for term in self.terms
        ]
        energetic = {
            field: {name: f.xreplace(table) for name, f in getattr(self, field).items()}
            for field in ("energies", "dissipations")
        }
        start = {v: f.xreplace(table) for v, f in self.start.items()}
        later = self.later_start
        if later is not None:
            later = LaterStart(later.time, {v: f.xreplace(table) for v, f in later.values.items()})
        return self.replace(terms=terms, start=start, later_start=later, **energetic)

    def _formulas(self) -> Iterable[sympy.Expr]:
        for term in self.terms:
            yield from term.formulas
        yield from self.energies.values()
        yield from self.dissipations.values()
        yield from self.start.values()
        if self.later_start is not None:
            yield self.later_start.time
            yield from self.later_start.values.values()

    def _check_terms(self) -> None:
        if not self.terms:
            raise DefinitionError("equations need at least one term, as in A: dtheta/dt = -g")
        if not all(isinstance(term, Term) for term in self.terms):
            raise DefinitionError("equations are made of Term objects: Equations(Term(...), ...)")
        letters = [term.letter for term in self.terms]
        twice = sorted({x for x in letters if letters.count(x) > 1})
        if twice:
            raise DefinitionError(f"letter {twice[0]!r} names two terms: letters are distinct")
        if theta not in {v for term in self.terms for v in term.moved}:
            raise DefinitionError("no term moves theta: an optimizer has to move the parameters")
        owner: dict[sympy.Symbol, str] = {}
        for term in self.terms:
            for w in {w for v in term.diffusion for w in term.amplitudes(v)}:
                if w in owner:
                    raise DefinitionError(
                        f"terms {owner[w]!r} and {term.letter!r} share the noise {w.name!r}: "
                        "name another (dW1, dW2 …)"
                    )
                owner[w] = term.letter
                moved = [v for v in term.diffusion if w in term.amplitudes(v)]
                if len({v in self.scalars for v in moved}) == 2:
                    raise DefinitionError(
                        f"term {term.letter!r}: the noise {w.name!r} has one value per element and "
                        "drives a scalar too: name another for it"
                    )

    def _check_names(self) -> None:
        moved = {v for term in self.terms for v in term.moved}
        for variable in self.scalars:
            if variable not in moved:
                raise DefinitionError(f"scalar {variable.name!r} is moved by no term")
        for variable in self.start:
            if variable not in moved or variable == theta:
                raise DefinitionError(
                    f"{variable.name!r} has a start value but no equation: starts are for the "
                    f"variables of the method {sorted(v.name for v in moved - {theta})}"
                )
        for variable, formula in self.start.items():
            others = formula.free_symbols & {*self.variables, *self.scalars} - {theta}
            if others or (variable in self.scalars and self.elementwise(formula)):
                raise DefinitionError(
                    f"the start of {variable.name!r}, {formula}, may use theta, g, t, L and "
                    "hyperparameters, and theta and g of a scalar's start only within total(...)"
                )
        later = self.later_start
        if later is not None:
            state = {*self.variables, *self.scalars, g, t, LOSS}
            used = [f.free_symbols & state - {theta, g, t, LOSS} for f in later.values.values()]
            if any(used) or not {*later.values} <= moved - {theta} or later.time.has(*state):
                raise DefinitionError(
                    f"a later start is a time, in hyperparameters, and values of the variables "
                    f"{sorted(v.name for v in moved - {theta})} in theta, g, t, L and "
                    f"hyperparameters, got {later}"
                )
        if unknown := sorted({*self.dissipations} - {*self.energies}):
            raise DefinitionError(f"dissipation of {unknown[0]!r}, which is no energy of the flow")
        for name, energy in self.energies.items():
            if any(is_channel(s) for s in energy.free_symbols):
                raise DefinitionError(f"energy {name!r} contains noise: {energy}")
        for term in self.terms:
            for variable, formula in (*term.drift.items(), *term.diffusion.items()):
                if variable in self.scalars and self.elementwise(formula):
                    raise DefinitionError(
                        f"term {term.letter!r}: {variable.name!r} is one value per block, its "
                        f"equation {formula} varies by element: wrap that in total(...)"
                    )

    def elementwise(self, formula: sympy.Expr) -> bool:
        """Whether a formula has one value per element (outside of `total`)."""
        bare = formula.replace(lambda e: isinstance(e, total), lambda e: sympy.Dummy())
        return bool(bare.free_symbols & {*self.variables, g})
