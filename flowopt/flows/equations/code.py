"""Equations printed as torch code, once per equation: letters, drifts, starts, energies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import sympy

from flowopt.core.interfaces import Wiener
from flowopt.errors import CompatibilityError, DefinitionError
from flowopt.symbolic.energy import Energy, energy_slope
from flowopt.symbolic.functions import curvature, damped, laplacian, total
from flowopt.symbolic.language import LOSS, STEP_SIZE, Equations, channel, g, theta
from flowopt.symbolic.maps import LetterMap, letter_map
from flowopt.symbolic.printing.torch_code import Compiled, compile_formulas
from flowopt.symbolic.tangent import PREFIX, drift_along

# Stands for damped(g, μ) in printed code.
SOLVED = sympy.Symbol("_damped", real=True)


@lru_cache(maxsize=512)
def damping_of(equations: Equations) -> str | None:
    """The name of μ in damped(g, μ), one wherever it stands; None where the flow has none.

    Raises:
        DefinitionError: It has other arguments.
    """
    formulas = [f for term in equations.terms for f in term.formulas]
    found = {call for formula in formulas for call in formula.atoms(damped)}
    if not found:
        return None
    (gradient, name), *others = (call.args for call in found)
    if others or gradient != g or str(name) not in equations.hyperparameters:
        raise DefinitionError(
            f"{', '.join(map(str, found))}: expected damped(g, damping) with one hyperparameter, "
            "the same wherever it stands"
        )
    return str(name)


def with_solution(formula: sympy.Expr) -> sympy.Expr:
    """A formula with the solution of the damped system as one more leaf."""
    return formula.replace(lambda e: isinstance(e, damped), lambda e: SOLVED)


class Normal(NamedTuple):
    """A standard normal in printed code: its name there, what it is for, and its Wiener process."""

    name: str
    variable: str
    channel: int
    wiener: str


@dataclass(frozen=True)
class Code:
    """A letter, a drift or start values as printed code, elementwise and scalar parts apart."""

    elementwise: Compiled | None
    scalar: Compiled | None
    names: tuple[str, ...]
    scalar_names: tuple[str, ...]
    normals: tuple["Normal", ...] = ()
    uses_gradient: bool = False
    kind: str = ""

    @property
    def is_letter(self) -> bool:
        """Whether it gives new values, as letters do, and no tangent."""
        return bool(self.kind)

    @property
    def source(self) -> str:
        """The printed torch code."""
        return "\n".join(part.source for part in (self.elementwise, self.scalar) if part)


def _compile(
    title: str,
    equations: Equations,
    formulas: dict[sympy.Symbol, sympy.Expr],
    normals: tuple[Normal, ...] = (),
) -> Code:
    drawn = [normal.name for normal in normals]
    leaves = [v.name for v in equations.variables] + ["g", SOLVED.name]
    solves = any(formula.has(damped) for formula in formulas.values())
    formulas = {v: with_solution(formula) for v, formula in formulas.items()}
    leaves += [*(PREFIX + name for name in leaves), *drawn]
    elementwise = {v.name: f for v, f in formulas.items() if v not in equations.scalars}
    scalar = {v.name: f for v, f in formulas.items() if v in equations.scalars}
    scalar_leaves = [name for name in leaves if name not in drawn]
    return Code(
        elementwise=compile_formulas(title, elementwise, leaves) if elementwise else None,
        scalar=compile_formulas(title, scalar, scalar_leaves) if scalar else None,
        names=tuple(elementwise),
        scalar_names=tuple(scalar),
        normals=normals,
        uses_gradient=solves or any(f.has(g, LOSS) for f in formulas.values()),
    )


@lru_cache(maxsize=512)
def letter_code(
    title: str, equations: Equations, letter: str, kind: str | None, parts: int, per_step: frozenset
) -> Code:
    """The map of a letter, or of several; `parts` is how often the word names it."""
    map_ = map_of(equations, letter, kind, parts, per_step)
    formulas, normals = _with_normals(map_.mean, map_.noise)
    code = _compile(f"{title}.{letter}", equations, formulas, normals)
    return replace(code, kind=map_.kind)


@lru_cache(maxsize=512)
def map_of(
    equations: Equations, letter: str, kind: str | None, parts: int, per_step: frozenset
) -> LetterMap:
    """The same as formulas."""
    map_ = letter_map(equations.joined(letter), kind, sympy.Rational(1, parts), per_step)
    _check_reach(equations, map_)
    return map_


def _with_normals(
    means: Mapping[sympy.Symbol, sympy.Expr], noise: Mapping[sympy.Symbol, Iterable[tuple]]
) -> tuple[dict[sympy.Symbol, sympy.Expr], tuple[Normal, ...]]:
    """Formulas with normals in place of Wiener processes, and the normals."""
    formulas, normals = dict(means), []
    wieners = dict.fromkeys(w for pairs in noise.values() for w, _ in pairs)
    channels = {wiener: i for i, wiener in enumerate(wieners)}
    for variable, pairs in noise.items():
        for wiener, amplitude in pairs:
            name = f"_n{len(normals)}"
            formulas[variable] += amplitude * sympy.Symbol(name, real=True)
            normals.append(Normal(name, variable.name, channels[wiener], wiener.name))
    return formulas, tuple(normals)


def _check_reach(equations: Equations, map_: LetterMap) -> None:
    """Raises `CompatibilityError` where the noise of a scalar moves elements in the same letter."""
    reached: dict[sympy.Symbol, set[bool]] = {}
    for variable, pairs in map_.noise.items():
        for wiener, _ in pairs:
            reached.setdefault(wiener, set()).add(variable in equations.scalars)
    if any(len(kinds) == 2 for kinds in reached.values()):
        raise CompatibilityError(
            f"{map_.letter!r} drives variables with one value per element by the noise of a scalar "
            f"that it moves too: give them letters of their own, or maps={{{map_.letter!r}: "
            "'frozen'}"
        )


@lru_cache(maxsize=128)
def drift_code(title: str, equations: Equations) -> Code:
    """The sum of all drifts."""
    formulas: dict[sympy.Symbol, sympy.Expr] = {}
    for term in equations.terms:
        for variable, drift in term.drift.items():
            formulas[variable] = formulas.get(variable, sympy.S.Zero) + drift
    return _compile(f"{title}.drift", equations, formulas)


@lru_cache(maxsize=128)
def drift_along_code(title: str, equations: Equations) -> Code:
    """The derivative of the summed drift along a direction."""
    return _compile(f"{title}.drift_along", equations, drift_along(equations))


@lru_cache(maxsize=128)
def wiener_processes(equations: Equations) -> tuple[Wiener, ...]:
    """The Wiener processes of all terms, in the order of their first mention."""
    amplitudes: dict[str, dict[str, sympy.Expr]] = {}
    for term in equations.terms:
        for variable in term.diffusion:
            for wiener, amplitude in term.amplitudes(variable).items():
                amplitudes.setdefault(wiener.name, {})[variable.name] = amplitude
    state = {v.name: v for v in (*equations.variables, *equations.scalars)}
    processes = []
    for name, table in amplitudes.items():
        symbols = set().union(*(amplitude.free_symbols for amplitude in table.values()))
        symbols |= {theta} if symbols & {g, LOSS} else set()
        depends_on = tuple(name for name, variable in state.items() if variable in symbols)
        processes.append(Wiener(name, tuple(table), depends_on))
    return tuple(processes)


@lru_cache(maxsize=128)
def diffusion_code(title: str, equations: Equations, wiener: str) -> Code:
    """The amplitudes of a Wiener process."""
    formulas = {
        variable: term.amplitudes(variable)[channel(wiener)]
        for term in equations.terms
        for variable in term.diffusion
        if channel(wiener) in term.amplitudes(variable)
    }
    return _compile(f"{title}.{wiener}", equations, formulas)


@lru_cache(maxsize=128)
def kick_code(title: str, equations: Equations) -> Code:
    """The sum of all noise over a step, a standard normal for each Wiener process."""
    noise: dict[sympy.Symbol, list[tuple]] = {}
    for term in equations.terms:
        for variable in term.diffusion:
            noise.setdefault(variable, []).extend(
                (w, a * sympy.sqrt(STEP_SIZE)) for w, a in term.amplitudes(variable).items()
            )
    formulas, normals = _with_normals(dict.fromkeys(noise, sympy.S.Zero), noise)
    return _compile(f"{title}.kick", equations, formulas, normals)


@lru_cache(maxsize=128)
def start_code(title: str, equations: Equations, later: bool) -> Code:
    """The declared start values, those at t = 0 or the later ones."""
    declared = equations.later_start
    values = declared.values if later and declared is not None else {}
    start = {**equations.start, **values}
    return _compile(f"{title}.start", equations, start)


@lru_cache(maxsize=128)
def time_code(title: str, equations: Equations) -> Compiled:
    """When a later start is."""
    declared = equations.later_start
    assert declared is not None
    return compile_formulas(f"{title}.start_time", {"time": declared.time}, [])


@lru_cache(maxsize=128)
def energy_slope_code(title: str, equations: Equations, name: str) -> Code:
    """The derivatives of an energy by θ and momenta."""
    return _compile(f"{title}.slope", equations, energy_slope(equations, name))


@lru_cache(maxsize=128)
def energy_code(title: str, equations: Equations, energy: Energy) -> tuple[Compiled, Compiled]:
    """An energy's density, to be summed over elements, and its scalar part."""
    leaves = [v.name for v in equations.variables] + ["g", "curvature", SOLVED.name]
    second = sympy.Symbol("curvature", real=True)
    values = {curvature(LOSS): second, laplacian(LOSS): total(second)}
    density, scalar = (
        with_solution(formula.xreplace(values)) for formula in (energy.density, energy.scalar)
    )
    return (
        compile_formulas(f"{title}.density", {"density": density}, leaves),
        compile_formulas(f"{title}.scalar", {"scalar": scalar}, leaves),
    )
