"""What maps say about basins: numbers of one map, and of maps side by side."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from flowopt.diagnostics.basins import LOST, UNFINISHED
from studies.basins.config import Config
from studies.basins.maps import Landmarks, ball, ends, landmarks, problem, starts
from studies.basins.methods import Method, method

TRUE_FLOW = "gradient_flow"
# Of the discs around minima from which leave rates are counted.
RADII = (0.1, 0.2, 0.3)


class Statistics(NamedTuple):
    """What a map says; shares in percent, NaN where something can not be said."""

    lost: float
    unfinished: float
    unlike_flow: float
    unlike_ode: float
    trap: float
    leave: float
    leave_middle: float
    leave_far: float
    parts: float
    convexity: float
    exponent: float
    dimension: float
    entropy: float
    boundary_entropy: float
    rises: float
    above_start: float
    steps: float
    cost: float


class Shape(NamedTuple):
    """What the pixels of a map say."""

    parts: float = math.nan
    convexity: float = math.nan
    exponent: float = math.nan
    dimension: float = math.nan
    entropy: float = math.nan
    boundary_entropy: float = math.nan


def statistics(arrays: xr.Dataset, where: str, name: str, config: Config) -> Statistics:
    """Of one map; NaN where something is not known of the problem, or needs a grid."""
    one = arrays.sel(map_problem=where, map_method=name)
    labels, flow = (labels_of(arrays, where, mapped) for mapped in (name, TRUE_FLOW))
    own = method(name).ode
    landscape = problem(where)
    known = landmarks(landscape)
    loss = landscape.loss(starts(landscape, config)).reshape(labels.shape)
    wells = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    near, middle, far = (float(value) for value in one.map_leave)
    shape = shapes(labels, wells) if config.sampling == "grid" else Shape()
    return Statistics(
        lost=_percent(labels == LOST),
        unfinished=_percent(labels == UNFINISHED),
        unlike_flow=_percent(labels != flow),
        unlike_ode=_percent(labels != labels_of(arrays, where, own)) if own else math.nan,
        trap=trap_violations(labels, flow, loss, known),
        leave=near,
        leave_middle=middle,
        leave_far=far,
        **shape._asdict(),
        rises=100.0 * float(one.map_rises),
        above_start=100.0 * float(one.map_above_start),
        steps=float(one.map_steps),
        cost=float(one.map_cost),
    )


def shapes(labels: Tensor, wells: list[int]) -> Shape:
    """What the pixels of a map say of the basins of some labels, and of all boundaries.

    Args:
        labels: (rows, columns).
        wells: Labels of the minima.
    """
    entropy, edge = fo.diagnostics.basin_entropy(labels), fo.diagnostics.boundary(labels)
    ratios = [fo.diagnostics.convexity(labels, n) for n in wells]
    return Shape(
        parts=sum(fo.diagnostics.components(labels, n) for n in wells) if wells else math.nan,
        convexity=float(np.nanmean(ratios)) if np.isfinite(ratios).any() else math.nan,
        exponent=edge.exponent,
        dimension=edge.dimension,
        entropy=entropy.everywhere,
        boundary_entropy=entropy.boundary,
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


def leave_rates(
    chosen: Method,
    landscape: fo.problems.Landscape,
    config: Config,
    radii: tuple[float, ...] = RADII,
) -> list[float]:
    """Percent of the starts within each radius of a minimum that end elsewhere, mean over minima.

    What has not converged is counted as staying; NaN where no isolated minimum is known.
    """
    known = landmarks(landscape)
    wells = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    wells = [n for n in wells if int((known.classes == n).sum()) == 1]
    if not wells or landscape.dim != 2:
        return [math.nan] * len(radii)
    shares = []
    for radius in radii:
        start = torch.cat(
            [ball(known.points[n], radius, config.near, config.seed + n) for n in wells]
        )
        labels = ends(chosen, landscape, start, seed=config.seed).label.values
        left = (labels != np.repeat(wells, config.near)) & (labels != UNFINISHED)
        shares.append(100.0 * float(left.mean()))
    return shares


def labels_of(arrays: xr.Dataset, where: str, name: str) -> Tensor:
    """(rows, columns): where each start of one map ends."""
    return torch.from_numpy(arrays.map_label.sel(map_problem=where, map_method=name).values)


def _percent(mask: Tensor) -> float:
    return 100.0 * int(mask.sum()) / mask.numel()
