"""Maps: many starts of one method on one problem, and where, when and at what cost they end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from flowopt.diagnostics.basins import LOST, UNFINISHED
from flowopt.errors import ConfigurationError
from flowopt.registry import PROBLEMS
from studies.basins.config import Config
from studies.basins.methods import MOST_ODE_STEPS, MOST_STEPS, ODE_TOLERANCE, Method
from studies.common.names import unknown_name

# Where in a pixel its start lies: no symmetry axis of a problem runs through both columns.
OFFSET = (0.382, 0.272)
USUAL_DOMAIN = (-3.0, 3.0)
RADIUS = 0.05
# Points by which a critical curve is known; they lie closer than the radius.
POINTS_ON_A_CURVE = 801
ROWS_AT_ONCE = 8192
# Rises of the energy are counted on so many starts, up to so many steps.
WATCHED_STARTS, WATCHED_STEPS, RISE = 200, 400, 0.01


@dataclass(frozen=True)
class Landmarks:
    """The places where trajectories may end.

    Attributes:
        points: (point, dim).
        classes: (point,), class of each: several points of a curve are one.
        names: Of the classes.
        kinds: Of the classes: "minimum", "saddle", "non-strict saddle", "maximum", "degenerate".
        values: Loss in each class.
    """

    points: Tensor
    classes: Tensor
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def lowest_saddle(self) -> float:
        """Loss of the lowest critical point that is no minimum; infinite without one."""
        pairs = zip(self.kinds, self.values, strict=True)
        return min((value for kind, value in pairs if kind != "minimum"), default=torch.inf)


@cache
def problem(name: str) -> fo.problems.Landscape:
    """A problem of the registry.

    Raises:
        ConfigurationError: There is none of this name, or it has fewer than two parameters.
    """
    if name not in PROBLEMS:
        raise ConfigurationError(unknown_name("problem", name, PROBLEMS))
    found = PROBLEMS[name]()
    if found.dim < 2:
        raise ConfigurationError(f"problem {name!r} has one parameter, a map needs two")
    return found


def domain(landscape: fo.problems.Landscape) -> tuple[float, float]:
    """Lowest and highest value of both coordinates of a map."""
    return landscape.domain or USUAL_DOMAIN


def landmarks(landscape: fo.problems.Landscape) -> Landmarks:
    """Critical points, minima first, and critical curves of a problem."""
    known = sorted(landscape.critical_points, key=lambda point: point.kind != "minimum")
    low, high = domain(landscape)
    along = torch.linspace(2 * low, 2 * high, POINTS_ON_A_CURVE, dtype=torch.float64)
    curves = [curve.position(along) for curve in landscape.critical_curves]
    single = torch.tensor([p.position for p in known], dtype=torch.float64)
    points = torch.cat([single.reshape(-1, landscape.dim), *curves])
    sizes = torch.tensor([1] * len(known) + [len(curve) for curve in curves], dtype=torch.int64)
    every = [*known, *landscape.critical_curves]
    return Landmarks(
        points,
        torch.arange(len(every)).repeat_interleave(sizes),
        tuple(_name(p.position) for p in known) + tuple(f"curve {n}" for n in range(len(curves))),
        tuple(entry.kind for entry in every),
        tuple(entry.value for entry in every),
    )


def _name(position: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in position) + ")"


def grid(low: float, high: float, pixels: int) -> Tensor:
    """(pixels², 2): one start in each pixel of a square, rows (the second coordinate) first."""
    size = (high - low) / pixels
    lines = torch.arange(pixels, dtype=torch.float64) * size + low
    second, first = torch.meshgrid(
        lines + OFFSET[1] * size, lines + OFFSET[0] * size, indexing="ij"
    )
    return torch.stack([first, second], -1).reshape(-1, 2)


def uniform(low: float, high: float, count: int, seed: int) -> Tensor:
    """(count, 2), at random in a square."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return low + (high - low) * numbers


def ball(centre: Tensor, radius: float, count: int, seed: int) -> Tensor:
    """(count, 2), at random in a disc."""
    generator = torch.Generator().manual_seed(seed)
    distance, turn = torch.rand(2, count, generator=generator, dtype=torch.float64)
    angle = 2.0 * torch.pi * turn
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    return centre + radius * distance.sqrt()[:, None] * circle


def on_plane(starts: Tensor, dim: int, axes: tuple[int, int]) -> Tensor:
    """(count, dim): starts of two coordinates placed on two axes, zero on all others."""
    placed = starts.new_zeros(len(starts), dim)
    placed[:, axes] = starts
    return placed


def starts(landscape: fo.problems.Landscape, config: Config) -> Tensor:
    """(pixels², dim): one in each pixel of a map, or as many at random on the same square.

    Raises:
        ConfigurationError: The problem has no such axes.
    """
    if max(config.axes) >= landscape.dim:
        raise ConfigurationError(
            f"axes came as {config.axes}, and {landscape.name} has {landscape.dim} parameters, "
            "numbered from 0"
        )
    low, high = domain(landscape)
    if config.sampling == "grid":
        plane = grid(low, high, config.pixels)
    else:
        plane = uniform(low, high, config.pixels**2, config.seed)
    return on_plane(plane, landscape.dim, (config.axes[0], config.axes[1]))


def to_rest(method: Method, landscape: fo.problems.Landscape) -> Method:
    """A true flow that ends where its steps leave no smaller gradient; any other as it is.

    At a minimum explicit steps of error ε rattle by about ε, and the gradient by ε·κ, κ the largest
    curvature.
    """
    if method.duration is None:
        return method
    curvatures = [
        max(abs(eigenvalue) for eigenvalue in point.eigenvalues)
        for point in landscape.critical_points
        if point.kind == "minimum"
    ]
    rattle = 2.0 * ODE_TOLERANCE * max(curvatures, default=0.0)
    return replace(method, tolerance=max(method.tolerance, rattle))


def ends(
    method: Method,
    landscape: fo.problems.Landscape,
    start: Tensor,
    *,
    most_steps: int = MOST_STEPS,
    seed: int = 0,
) -> xr.Dataset:
    """Moves every start to its end.

    Args:
        method: What moves them.
        landscape: The problem.
        start: (start, dim).
        most_steps: After which a trajectory counts as not converged.
        seed: Of noise, if the flow has some.

    Returns:
        Along "start": "label" (class of `landmarks`, or a negative label of
        `flowopt.diagnostics`), "steps", "cost" in forward passes, and "start_loss".
    """
    method = to_rest(method, landscape)
    solution = moved(method, landscape, start, most_steps=most_steps, seed=seed)
    labels = classified(solution, landscape, method.tolerance)
    return xr.Dataset(
        {
            "label": ("start", labels.numpy()),
            "steps": ("start", solution.steps.to(torch.int32).numpy()),
            "cost": ("start", solution.cost.to(torch.float32).numpy()),
            "start_loss": ("start", landscape.loss(start).numpy()),
        }
    )


def moved(
    method: Method,
    problem: fo.problems.Landscape | fo.problems.Network,
    start: object,
    *,
    most_steps: int = MOST_STEPS,
    seed: int = 0,
    compile: bool | str = "auto",
) -> fo.Solution:
    """Moves every start to its end.

    Raises:
        KeyboardInterrupt: From the keyboard.
    """
    solution = fo.integrate(
        method.flow,
        method.scheme,
        problem,
        start,
        control=method.control,
        steps=most_steps if method.duration is None else MOST_ODE_STEPS,
        duration=method.duration,
        stop=method.stop,
        seed=seed,
        compile=compile,
    )
    if bool((solution.status == fo.Status.INTERRUPTED).any()):
        raise KeyboardInterrupt
    return solution


def classified(solution: fo.Solution, landscape: fo.problems.Landscape, tolerance: float) -> Tensor:
    """(start,), int8: class of the landmark where each trajectory ended, or what went wrong."""
    known = landmarks(landscape)
    position = cast(Tensor, solution.position)
    # What diverged keeps its last finite state, where the gradient may be of any size.
    diverged = (solution.status == fo.Status.DIVERGED)[:, None]
    gradient = landscape.gradient(position).masked_fill(diverged, torch.nan)
    rows = zip(position.split(ROWS_AT_ONCE), gradient.split(ROWS_AT_ONCE), strict=True)
    labels = torch.cat(
        [
            fo.diagnostics.end_labels(p, g, known.points, tolerance=tolerance, radius=RADIUS)
            for p, g in rows
        ]
    )
    classes = torch.cat([known.classes, torch.zeros(1, dtype=torch.int64)])
    labels = torch.where(labels >= 0, classes[labels.clamp(min=0)], labels)
    # A true flow at the end of its time may be anywhere, and has not diverged.
    late = (solution.status == fo.Status.TIME_REACHED) & (labels == LOST)
    labels = torch.where(late, UNFINISHED, labels)
    return labels.to(torch.int8)


def rises(
    method: Method, landscape: fo.problems.Landscape, start: Tensor, *, seed: int = 0
) -> xr.Dataset:
    """In how many steps the energy rose by more than a hundredth of itself.

    Args:
        method: Whose flow declares an energy; its first is watched.
        landscape: The problem.
        start: (start, dim), of which at most 200 are followed, for at most 400 steps.
        seed: Of noise, if the flow has some.

    Returns:
        "rises", the share of such steps, and "above_start", that of steps that end with a loss
        above the one at the start; NaN where the flow has no energy, and for true flows, whose
        steps are no steps of a method.
    """
    if not method.flow.energies or method.duration is not None:
        return xr.Dataset({"rises": torch.nan, "above_start": torch.nan})
    chosen = start[:: max(1, len(start) // WATCHED_STARTS)]
    solution = fo.integrate(
        method.flow,
        method.scheme,
        landscape,
        chosen,
        control=method.control,
        steps=WATCHED_STEPS,
        duration=method.duration,
        stop=method.stop,
        record={"energy": 1, "loss": 1},
        seed=seed,
    )
    energy, loss = solution.records["energy"], solution.records["loss"]
    before, after = energy[:-1], energy[1:]
    taken = after.isfinite() & before.isfinite()
    rose = taken & (after - before > RISE * before.abs())
    above = loss[1:] > loss[0]
    count = float(taken.sum())
    return xr.Dataset(
        {
            "rises": float(rose.sum()) / count if count else torch.nan,
            "above_start": float(above.sum()) / float(loss[1:].isfinite().sum() or torch.nan),
        }
    )
