"""Maps of a square of starts, one per problem and method, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from studies.basins.config import Config
from studies.basins.maps import Landmarks, ends, landmarks, problem, rises, starts
from studies.basins.methods import Method, method
from studies.basins.statistics import RADII, TRUE_FLOW, labels_of, leave_rates, statistics
from studies.common.tables import markdown_table

# Kind of a critical point that is no minimum → title of a column.
PLURALS = {
    "saddle": "strict saddles",
    "non-strict saddle": "non-strict saddles",
    "maximum": "maxima",
    "degenerate": "degenerate points",
}
# Minima with a column of their own.
MOST_MINIMA = 8
# Table → field of `Statistics` → title of its column and format.
TABLES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Beside the equations / %": {
        "unlike_flow": ("≠ flow", ".2f"),
        "unlike_ode": ("≠ own ODE", ".2f"),
        "trap": ("trap", ".2f"),
        "leave": (f"L({RADII[0]})", ".2f"),
        "leave_middle": (f"L({RADII[1]})", ".2f"),
        "leave_far": (f"L({RADII[2]})", ".2f"),
    },
    "Shape of the basins": {
        "parts": ("parts", ".0f"),
        "convexity": ("convex", ".3f"),
        "exponent": ("α", ".3f"),
        "dimension": ("D", ".3f"),
        "entropy": ("Sb", ".3f"),
        "boundary_entropy": ("Sbb", ".3f"),
    },
    "On the way": {
        "rises": ("E up / %", ".2f"),
        "above_start": ("R > R₀ / %", ".2f"),
        "steps": ("steps", ".0f"),
        "cost": ("cost", ".0f"),
    },
}
NOTES = """\
Where starts end: shares with the 95 % intervals of as many random starts. Diverged: the gradient is
above 1000 or not finite; not converged: after 20000 steps; elsewhere: the gradient is small, no
known point is near. A start that passes a saddle with a gradient below the tolerance ends there.

≠ flow and ≠ own ODE: starts whose end is not that of the gradient flow, and of the equation that
the method steps. Trap: of the starts below the lowest saddle, those that end in another well than
theirs. L(r): of the starts within r of a minimum, those that end elsewhere.

Parts: connected parts of the basins of all minima; convex: area of a basin over that of its convex
hull, mean over the minima. α: uncertainty exponent, the share of starts whose end a change by ε may
alter is ε^α; D = 2 − α: dimension of the boundary. Sb, Sbb: basin entropy in boxes of 5 × 5 pixels,
everywhere and at the boundary, in nats (beyond ln 2 = 0.69: fractal).

E up: steps in which the energy rose by more than 1 %; R > R₀: steps that end above the loss at the
start. Steps and cost: means over the starts, cost in forward passes."""


def names(config: Config) -> list[str]:
    """Methods of the maps: those asked for, the gradient flow first, and their own flows last."""
    asked = [TRUE_FLOW, *config.methods]
    own = [method(name).ode for name in config.methods]
    return list(dict.fromkeys([*asked, *(name for name in own if name)]))


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each problem and method."""
    return {
        _unit(where, name): lambda where=where, name=name: _mapped(where, method(name), config)
        for where in config.problems
        for name in names(config)
    }


def _unit(where: str, name: str) -> str:
    return f"map {where} {name}"


def _mapped(where: str, chosen: Method, config: Config) -> xr.Dataset:
    landscape = problem(where)
    start = starts(landscape, config)
    found = ends(chosen, landscape, start, seed=config.seed)
    size = (config.pixels, config.pixels)
    return xr.Dataset(
        {
            "map_label": (("map_row", "map_column"), found.label.values.reshape(size)),
            "map_steps": float(found.steps.mean()),
            "map_cost": float(found.cost.mean()),
            "map_leave": ("map_radius", leave_rates(chosen, landscape, config)),
            **{f"map_{k}": v for k, v in rises(chosen, landscape, start, seed=config.seed).items()},
        },
        {"map_radius": list(RADII)},
    )


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All maps along "map_problem" and "map_method"."""
    rows = [
        xr.concat([found[_unit(where, name)] for name in names(config)], "map_method")
        for where in config.problems
    ]
    arrays = xr.concat(rows, "map_problem")
    return arrays.assign_coords(map_problem=list(config.problems), map_method=names(config))


def section(arrays: xr.Dataset, config: Config) -> str:
    """Tables of every problem: where starts end, and what else their map says."""
    parts = []
    for where in config.problems:
        known = landmarks(problem(where))
        header, rows = end_shares(arrays, where, config, known)
        parts.append(f"### {where}\n\n" + markdown_table(header, rows, right=header[1:]))
        numbers = {name: statistics(arrays, where, name, config) for name in names(config)}
        for title, columns in TABLES.items():
            header = (title, *(column for column, _ in columns.values()))
            rows = [
                (name, *(_cell(getattr(one, k), form) for k, (_, form) in columns.items()))
                for name, one in numbers.items()
            ]
            parts.append(markdown_table(header, rows, right=header[1:]))
    size = f"{config.pixels} × {config.pixels}"
    kind = f"{size} starts on a grid" if config.sampling == "grid" else f"{size} random starts"
    return f"## Maps of {kind}\n\n{NOTES}\n\n" + "\n\n".join(parts)


def end_shares(
    arrays: xr.Dataset, where: str, config: Config, known: Landmarks
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table of ends: shares in percent with 95 % intervals."""
    columns = end_columns(known)
    rows = []
    for name in names(config):
        labels = labels_of(arrays, where, name)
        rows.append((name, *(_with_interval(labels, codes) for codes in columns.values())))
    return ("Where starts end / %", *columns), rows


def end_columns(known: Landmarks) -> dict[str, list[int]]:
    """Title of a column → labels that it counts: minima, other points by kind, the rest."""
    minima = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    columns = {known.names[n]: [n] for n in minima[:MOST_MINIMA]}
    if len(minima) > MOST_MINIMA:
        columns["other minima"] = minima[MOST_MINIMA:]
    for kind, title in PLURALS.items():
        if kind in known.kinds:
            columns[title] = [n for n, other in enumerate(known.kinds) if other == kind]
    columns |= {"elsewhere": [ELSEWHERE], "not converged": [UNFINISHED], "diverged": [LOST]}
    return columns


def _with_interval(labels: Tensor, codes: list[int]) -> str:
    count = int(torch.isin(labels, torch.tensor(codes, dtype=labels.dtype)).sum())
    low, high = fo.diagnostics.binomial_interval(count, labels.numel())
    return f"{100.0 * count / labels.numel():.2f} ({100.0 * low:.2f}–{100.0 * high:.2f})"


def _cell(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"
