"""What the equations do without steps: trapped starts, and the ends of the gradient flow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import xarray as xr

import flowopt as fo
from studies.basins.config import Config
from studies.basins.maps import domain, ends, landmarks, moved, problem, uniform
from studies.basins.methods import ODE_DURATION, Method, method, moment_ode
from studies.common.tables import markdown_table

TRAPS = "poly_two"
# b/a; the energy of Adam's equations surely falls up to 4.
SAFE_RATIO = 4.0
RATIOS = (0.01, 1.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 100.0)
# Relative, of a loss.
ROUNDING = 1e-6
SADDLES, PUBLISHED = "poly_five", (26.8, 2.2)
HALF_WIDTH = 3.0
# How the flow is followed and ended → its method; without words as everywhere.
CRITERIA: Mapping[str, Callable[[], Method]] = {
    "": lambda: method("gradient_flow"),
    "|g| ≤ 1e-3": lambda: replace(method("gradient_flow"), tolerance=1e-3),
    "steps to 1e-11": lambda: replace(
        method("gradient_flow"), control=fo.ErrorControl(rtol=1e-11, atol=1e-11)
    ),
}
KINDS = ("minimum", "non-strict saddle", "saddle", "maximum")


def _flows() -> dict[str, Method]:
    """Name → true flow."""
    return {
        "gradient flow": method("gradient_flow"),
        "momentum": method("momentum_ode"),
        **{
            f"{name}, b = {ratio:g} a": moment_ode(ratio, corrected=corrected)
            for name, corrected in {"Adam": True, "Adam without correction": False}.items()
            for ratio in RATIOS
        },
    }


def ratio_of(flow: str) -> float:
    """b/a of a flow by its name; 0 where it has no such rates."""
    found = re.search(r"b = (\S+) a", flow)
    return float(found[1]) if found else 0.0


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each flow, and one for the ends at saddles."""
    traps = {
        f"trap {name}": lambda chosen=chosen: _trapped(chosen, config)
        for name, chosen in _flows().items()
    }
    saddles = {
        _saddle_unit(words): lambda criterion=criterion: _saddles(criterion(), config)
        for words, criterion in CRITERIA.items()
    }
    return {**traps, **saddles}


def _saddle_unit(words: str) -> str:
    return f"saddles {words}".rstrip()


def _trapped(chosen: Method, config: Config) -> xr.Dataset:
    """How many starts below the lowest saddle are at the end outside of their trap.

    The trap is the part of {loss ≤ loss at the start} around the start: outside are those with a
    larger loss, and those that the gradient flow takes to another minimum.
    """
    landscape = problem(TRAPS)
    start = uniform(*domain(landscape), config.trapped, config.seed)
    ceiling = landscape.loss(start)
    below = ceiling < landmarks(landscape).lowest_saddle
    start, ceiling = start[below], ceiling[below]
    solution = moved(chosen, landscape, start)
    downhill = method("gradient_flow")
    home, well = (ends(downhill, landscape, x).label for x in (start, solution.position))
    above = (solution.loss > ceiling * (1 + ROUNDING)).numpy()
    resting = solution.status == fo.Status.GRADIENT_SMALL
    return xr.Dataset(
        {
            "trap_left": int((above | (home != well).values).sum()),
            "trap_other": int((home != well).sum()),
            "trap_resting": int(resting.sum()),
            "trap_starts": len(start),
        }
    )


def _saddles(chosen: Method, config: Config) -> xr.Dataset:
    """Where the gradient flow ends on a problem with non-strict saddles."""
    landscape = problem(SADDLES)
    known = landmarks(landscape)
    start = uniform(-HALF_WIDTH, HALF_WIDTH, config.flowing, config.seed)
    labels = ends(chosen, landscape, start).label.values
    kinds = [known.kinds[label] if label >= 0 else "" for label in labels]
    return xr.Dataset(
        {"saddle_count": ("saddle_kind", [kinds.count(kind) for kind in KINDS])},
        {"saddle_kind": list(KINDS)},
    )


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """Counts along "trap_flow", "saddle_criterion" and "saddle_kind"."""
    names = list(_flows())
    traps = xr.concat([found[f"trap {name}"] for name in names], "trap_flow")
    saddles = xr.concat([found[_saddle_unit(words)] for words in CRITERIA], "saddle_criterion")
    saddles = saddles.assign_coords(saddle_criterion=list(CRITERIA))
    return xr.merge([traps.assign_coords(trap_flow=names), saddles])


def section(arrays: xr.Dataset, config: Config) -> str:
    """Two tables."""
    rows = []
    for name in arrays.trap_flow.values:
        one = arrays.sel(trap_flow=name)
        fields = ("starts", "resting", "left", "other")
        numbers = (int(one[f"trap_{field}"]) for field in fields)
        rows.append((str(name), *map(str, numbers)))
    header = ("equation", "trapped starts", "at rest", "outside of the trap", "in another well")
    traps = markdown_table(header, rows, right=header[1:])
    return (
        f"## Equations without steps\n\nStarts on {TRAPS} below its lowest saddle, at time "
        f"{ODE_DURATION:g} or at rest. An energy that starts as the loss and falls keeps the loss "
        "below that at the start, and the start in its well: of Adam's equations it surely falls "
        f"for b ≤ 4a.\n\n{traps}\n\n" + _saddle_table(arrays, config)
    )


def _saddle_table(arrays: xr.Dataset, config: Config) -> str:
    rows = [
        (kind, *(_with_interval(arrays, kind, words, config) for words in CRITERIA))
        for kind in KINDS
    ]
    header = ("the gradient flow ends at a", "share / %", *list(CRITERIA)[1:])
    value, error = PUBLISHED
    table = markdown_table(header, rows, right=header[1:])
    return (
        f"{SADDLES}, {config.flowing} starts on [−3, 3]², with 95 % intervals; another integrator "
        f"(LSODA, 400 starts) ended at non-strict saddles in {value} ± {error} %. The further "
        "columns end the flow at a larger gradient, and follow it more closely.\n\n" + table
    )


def _with_interval(arrays: xr.Dataset, kind: str, words: str, config: Config) -> str:
    count = int(arrays.saddle_count.sel(saddle_kind=kind, saddle_criterion=words))
    low, high = fo.diagnostics.binomial_interval(count, config.flowing)
    return f"{100 * count / config.flowing:.2f} ({100 * low:.2f}–{100 * high:.2f})"
