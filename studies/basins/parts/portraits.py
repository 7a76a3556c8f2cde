"""Maps of a square of starts, one per problem and method, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from flowopt.diagnostics.basins import LOST, UNFINISHED
from studies.basins.config import Config
from studies.basins.maps import (
    Landmarks,
    ball,
    domain,
    ends,
    grid,
    landmarks,
    on_plane,
    problem,
    rises,
)
from studies.basins.methods import Method, method
from studies.common.tables import markdown_table

TRUE_FLOW = "gradient_flow"
RADII = (0.1, 0.2, 0.3)
HEADER = (
    "method",
    "lost",
    "not conv.",
    "≠ flow",
    "≠ own ODE",
    "trap",
    "L(0.1)",
    "parts",
    "convex",
    "D",
    "Sb",
    "Sbb",
    "saddles",
    "non-strict",
    "maxima",
    "E up",
    "R > R₀",
    "steps",
    "cost",
)
NOTES = """\
Percent, where no other unit is natural. Lost: gradient above 1000 or not finite; not converged:
after 20000 steps. ≠ flow and ≠ own ODE: starts whose end is not that of the gradient flow, and of
the flow that the method steps. Trap: of the starts below the lowest saddle, those that end in
another well than theirs. L(0.1): of the starts at a distance up to 0.1 from a minimum, those that
end elsewhere. Parts: connected parts of all basins; convex: area of the basins over that of their
convex hulls. D: dimension of the boundary, 2 less the uncertainty exponent. Sb, Sbb: basin entropy
in boxes of 5 × 5 pixels, everywhere and at the boundary, nats (beyond ln 2 = 0.69: fractal).
Saddles (strict), non-strict ones, maxima: starts that end there. E up: steps in which the energy
rose by more than 1 %; R > R₀: steps that end above the loss at the start. Cost in
forward-equivalents: loss 1, gradient 3, product with a Jacobian 2."""


class Statistics(NamedTuple):
    """What a map says; shares in percent."""

    lost: float
    unfinished: float
    unlike_flow: float
    unlike_ode: float
    trap: float
    leave: float
    parts: float
    convexity: float
    dimension: float
    entropy: float
    boundary_entropy: float
    saddles: float
    non_strict: float
    maxima: float
    rises: float
    above_start: float
    steps: float
    cost: float


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
    axes = (config.axes[0], config.axes[1])
    start = on_plane(grid(*domain(landscape), config.pixels), landscape.dim, axes)
    found = ends(chosen, landscape, start)
    size = (config.pixels, config.pixels)
    return xr.Dataset(
        {
            "map_label": (("map_row", "map_column"), found.label.values.reshape(size)),
            "map_steps": float(found.steps.mean()),
            "map_cost": float(found.cost.mean()),
            "map_leave": ("map_radius", leave_rates(chosen, landscape, config)),
            **{f"map_{k}": v for k, v in rises(chosen, landscape, start).items()},
        },
        {"map_radius": list(RADII)},
    )


def leave_rates(chosen: Method, landscape: fo.problems.Landscape, config: Config) -> list[float]:
    """Percent of the starts near a minimum that end elsewhere, mean over the minima."""
    known = landmarks(landscape)
    wells = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    wells = [n for n in wells if int((known.classes == n).sum()) == 1]
    if not wells or landscape.dim != 2:
        return [math.nan] * len(RADII)
    shares = []
    for radius in RADII:
        start = torch.cat(
            [ball(known.points[n], radius, config.near, config.seed + n) for n in wells]
        )
        labels = ends(chosen, landscape, start).label.values
        left = (labels != np.repeat(wells, config.near)) & (labels != UNFINISHED)
        shares.append(100.0 * float(left.mean()))
    return shares


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All maps along "map_problem" and "map_method"."""
    rows = [
        xr.concat([found[_unit(where, name)] for name in names(config)], "map_method")
        for where in config.problems
    ]
    arrays = xr.concat(rows, "map_problem")
    return arrays.assign_coords(map_problem=list(config.problems), map_method=names(config))


def section(arrays: xr.Dataset, config: Config) -> str:
    """One table per problem."""
    tables = []
    for where in config.problems:
        rows = [_row(name, statistics(arrays, where, name)) for name in names(config)]
        known = landmarks(problem(where))
        shares = [_shares(arrays, where, name, known) for name in names(config)]
        wells = tuple(n for n, k in zip(known.names, known.kinds, strict=True) if k == "minimum")
        tables.append(
            f"### {where}\n\n"
            + markdown_table(HEADER, rows, right=HEADER[1:])
            + "\n\nProbabilities of the minima / %, with 95 % intervals:\n\n"
            + markdown_table(("method", *wells), shares, right=wells)
        )
    title = f"## Maps of {config.pixels} × {config.pixels} starts\n\n{NOTES}\n\n"
    return title + "\n\n".join(tables)


def statistics(arrays: xr.Dataset, where: str, name: str) -> Statistics:
    """Of one map; NaN where something is not known of the problem."""
    one = arrays.sel(map_problem=where, map_method=name)
    labels = _labels(arrays, where, name)
    flow = _labels(arrays, where, TRUE_FLOW)
    own = method(name).ode
    landscape = problem(where)
    known = landmarks(landscape)
    entropy = fo.diagnostics.basin_entropy(labels)
    wells = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    ratios = [fo.diagnostics.convexity(labels, n) for n in wells]
    return Statistics(
        lost=_percent(labels == LOST),
        unfinished=_percent(labels == UNFINISHED),
        unlike_flow=_percent(labels != flow),
        unlike_ode=_percent(labels != _labels(arrays, where, own)) if own else math.nan,
        trap=trap_violations(labels, flow, _start_loss(landscape, len(labels)), known),
        leave=float(one.map_leave[0]),
        parts=sum(fo.diagnostics.components(labels, n) for n in wells) if wells else math.nan,
        convexity=float(np.nanmean(ratios)) if np.isfinite(ratios).any() else math.nan,
        dimension=fo.diagnostics.boundary(labels).dimension,
        entropy=entropy.everywhere,
        boundary_entropy=entropy.boundary,
        saddles=_share_of_kind(labels, known, "saddle"),
        non_strict=_share_of_kind(labels, known, "non-strict saddle"),
        maxima=_share_of_kind(labels, known, "maximum"),
        rises=100.0 * float(one.map_rises),
        above_start=100.0 * float(one.map_above_start),
        steps=float(one.map_steps),
        cost=float(one.map_cost),
    )


def trap_violations(labels: Tensor, flow: Tensor, start_loss: Tensor, known: Landmarks) -> float:
    """Percent of the starts below the lowest saddle that end in another well than theirs.

    Below it a well is a part of its minimum's basin under the gradient flow. What has not
    converged is counted neither as leaving nor as staying.

    Args:
        labels: Of a method.
        flow: Of the gradient flow from the same starts.
        start_loss: At the same starts.
        known: Of the problem.

    Returns:
        Percent; NaN where no start lies below, or no saddle is known.
    """
    trapped = (start_loss < known.lowest_saddle) & (labels != UNFINISHED)
    if not bool(trapped.any()) or not math.isfinite(known.lowest_saddle):
        return math.nan
    return _percent(labels[trapped] != flow[trapped])


def _labels(arrays: xr.Dataset, where: str, name: str) -> Tensor:
    return torch.from_numpy(arrays.map_label.sel(map_problem=where, map_method=name).values)


def _start_loss(landscape: fo.problems.Landscape, pixels: int) -> Tensor:
    if landscape.dim != 2:
        return torch.full((pixels, pixels), torch.inf)
    return landscape.loss(grid(*domain(landscape), pixels)).reshape(pixels, pixels)


def _share_of_kind(labels: Tensor, known: Landmarks, kind: str) -> float:
    numbers = [n for n, found in enumerate(known.kinds) if found == kind]
    return _percent(torch.isin(labels, torch.tensor(numbers, dtype=labels.dtype)))


def _percent(mask: Tensor) -> float:
    return 100.0 * float(mask.double().mean())


def _row(name: str, numbers: Statistics) -> tuple[str, ...]:
    whole = {"parts", "steps", "cost"}
    ratios = {"convexity", "dimension", "entropy", "boundary_entropy"}
    cells = []
    for field, value in numbers._asdict().items():
        form = ".0f" if field in whole else ".2f"
        form = ".3f" if field in ratios else form
        cells.append("–" if math.isnan(value) else f"{value:{form}}")
    return (name, *cells)


def _shares(arrays: xr.Dataset, where: str, name: str, known: Landmarks) -> tuple[str, ...]:
    labels = _labels(arrays, where, name)
    cells = []
    for number, kind in enumerate(known.kinds):
        if kind == "minimum":
            count = int((labels == number).sum())
            low, high = fo.diagnostics.binomial_interval(count, labels.numel())
            percent = 100.0 * count / labels.numel()
            cells.append(f"{percent:.2f} ({100 * low:.2f}–{100 * high:.2f})")
    return (name, *cells)
