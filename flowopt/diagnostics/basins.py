"""Maps of where trajectories end, and what such a map says about its basins and boundaries.

A map is a tensor of labels, one per start: k ≥ 0 for the k-th known point, and one of `ELSEWHERE`,
`UNFINISHED` and `LOST`. On a grid its rows and columns are pixels, whose length is the unit.

Reference:
    McDonald, Grebogi, Ott & Yorke 1985, Physica D 17, 125; Daza, Wagemakers, Georgeot,
    Guéry-Odelin & Sanjuán 2016, Sci. Rep. 6, 31416.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage, stats
from scipy.spatial import ConvexHull
from torch import Tensor

from flowopt.errors import DataError

ELSEWHERE, UNFINISHED, LOST = -1, -2, -3
# A gradient beyond counts as divergence even where it is finite.
LARGEST_GRADIENT = 1e3
DISTANCES = tuple(range(1, 17))


def end_labels(
    position: Tensor,
    gradient: Tensor,
    points: Tensor,
    *,
    tolerance: float,
    radius: float = 0.05,
) -> Tensor:
    """Where trajectories ended.

    Args:
        position: (*batch, dim), final.
        gradient: (*batch, dim), there.
        points: (point, dim), the known points.
        tolerance: Norm of the gradient up to which a trajectory counts as converged.
        radius: Distance within which it counts as having reached a point.

    Returns:
        (*batch,), int64: number of the nearest point if that lies within the radius, `ELSEWHERE`
        if the trajectory converged to none of them, `LOST` where something is not finite or the
        gradient is beyond 1000, else `UNFINISHED`.
    """
    norm = torch.linalg.vector_norm(gradient, dim=-1)
    lost = ~(norm <= LARGEST_GRADIENT) | ~position.isfinite().all(-1)
    labels = torch.full(norm.shape, ELSEWHERE)
    if len(points):
        places = position.reshape(-1, points.shape[-1])
        distance, nearest = torch.cdist(places, points.to(places)).min(-1)
        near = (distance <= radius).reshape(norm.shape)
        labels = torch.where(near, nearest.reshape(norm.shape), labels)
    labels = torch.where(norm <= tolerance, labels, UNFINISHED)
    return torch.where(lost, LOST, labels)


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


def binomial_interval(count: int, total: int, *, level: float = 0.95) -> Interval:
    """Wilson's interval of a probability of which `count` of `total` independent trials are known.

    Raises:
        DataError: There is no trial, or more successes than trials.
    """
    if not 0 <= count <= total or total == 0:
        raise DataError(f"{count} successes of {total} trials: give 0 ≤ count ≤ total, total ≥ 1")
    bounds = stats.binomtest(count, total).proportion_ci(level, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def components(labels: Tensor, label: int) -> int:
    """Connected parts of a basin; pixels that share a side are connected.

    Args:
        labels: (rows, columns).
        label: Of the basin.
    """
    return int(ndimage.label(_map(labels) == label)[1])


def convexity(labels: Tensor, label: int) -> float:
    """Area of a basin over that of its convex hull, between 0 and 1: 1 where it is convex.

    Args:
        labels: (rows, columns).
        label: Of the basin.

    Returns:
        The ratio; NaN where the basin has no pixel.
    """
    rows, columns = np.nonzero(_map(labels) == label)
    if len(rows) == 0:
        return float("nan")
    corners = [(rows + i, columns + j) for i in (0, 1) for j in (0, 1)]
    hull = ConvexHull(np.concatenate([np.stack(corner, -1) for corner in corners]))
    # In two dimensions its volume is the area.
    return len(rows) / float(hull.volume)


class Boundary(NamedTuple):
    """How uncertain the ends of trajectories are.

    Attributes:
        exponent: α of f(ε) ∝ ε^α, the share of starts whose label a change by ε may alter.
        dimension: D = 2 − α of the boundary between basins: 1 where smooth, 2 where it is all.
        shares: f(ε) for each distance, (distance,).
    """

    exponent: float
    dimension: float
    shares: Tensor


def boundary(labels: Tensor, *, distances: tuple[int, ...] = DISTANCES) -> Boundary:
    """Uncertainty exponent of a map, and the dimension of its boundary.

    A pixel is uncertain at ε if one of the four pixels that lie ε to its sides has another label.

    Args:
        labels: (rows, columns).
        distances: ε, in pixels.

    Returns:
        Exponent and dimension by least squares in logarithms; NaN where nothing is uncertain.

    Raises:
        DataError: There are fewer than two distances, or one is not shorter than the map.

    Reference:
        McDonald, Grebogi, Ott & Yorke 1985, Physica D 17, 125.
    """
    grid = torch.from_numpy(_map(labels))
    if len({*distances}) < 2 or min(distances) < 1 or max(distances) >= min(grid.shape):
        raise DataError(
            f"distances {distances} on a map of {tuple(grid.shape)} pixels: give two or more, from "
            "1 to less than its sides"
        )
    shares = []
    for distance in distances:
        uncertain = torch.zeros(grid.shape, dtype=torch.bool)
        for axis in (0, 1):
            size = grid.shape[axis] - distance
            differs = grid.narrow(axis, 0, size) != grid.narrow(axis, distance, size)
            uncertain.narrow(axis, 0, size).logical_or_(differs)
            uncertain.narrow(axis, distance, size).logical_or_(differs)
        shares.append(float(uncertain.double().mean()))
    exponent = float("nan")
    if min(shares) > 0:
        exponent = float(np.polyfit(np.log(distances), np.log(shares), 1)[0])
    return Boundary(exponent, 2.0 - exponent, torch.tensor(shares, dtype=torch.float64))


class Entropy(NamedTuple):
    """Basin entropy, in nats.

    Attributes:
        everywhere: Sb, mean over all boxes.
        boundary: Sbb, mean over the boxes with more than one label; beyond ln 2 only where the
            boundary is fractal; NaN where there is no such box.
    """

    everywhere: float
    boundary: float


def basin_entropy(labels: Tensor, *, box: int = 5) -> Entropy:
    """How mixed the labels within small boxes are, −Σ p ln p with p their shares in a box.

    Args:
        labels: (rows, columns); rows and columns that fill no box are left out.
        box: Side of a box, pixels.

    Raises:
        DataError: The map is smaller than a box, or the box has no pixel.

    Reference:
        Daza, Wagemakers, Georgeot, Guéry-Odelin & Sanjuán 2016, Sci. Rep. 6, 31416.
    """
    grid = torch.from_numpy(_map(labels))
    if not 1 <= box <= min(grid.shape):
        raise DataError(
            f"boxes of {box} × {box} on a map of {tuple(grid.shape)} pixels: give a side from 1 to "
            "the map's shorter one"
        )
    rows, columns = (size // box * box for size in grid.shape)
    boxes = grid[:rows, :columns].unflatten(0, (-1, box)).unflatten(2, (-1, box))
    boxes = boxes.transpose(1, 2).reshape(-1, box * box)
    entropy = torch.zeros(len(boxes), dtype=torch.float64)
    for label in boxes.unique():
        share = (boxes == label).double().mean(-1)
        entropy -= torch.xlogy(share, share)
    mixed = (boxes != boxes[:, :1]).any(-1)
    return Entropy(float(entropy.mean()), float(entropy[mixed].mean()))


def _map(labels: Tensor) -> np.ndarray:
    if labels.ndim != 2 or labels.numel() == 0:
        raise DataError(f"a map has rows and columns, got labels of shape {tuple(labels.shape)}")
    return labels.numpy(force=True)
