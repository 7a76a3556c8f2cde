"""Draws the study from its arrays."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from studies.basins.author_networks import TASKS, Task
from studies.basins.maps import domain, landmarks, problem
from studies.basins.parts.networks import ensemble, share
from studies.basins.parts.sweeps import TITLES
from studies.common.results import ResultFolder
from studies.common.style import STYLE, line_style

# Blue, orange, gold and magenta minima, brown divergence; further classes in tints that differ in
# lightness, so that they stay apart without hue.
MINIMA = ("#4C86C6", "#F0803C", "#F6CF4A", "#C9569B", "#8FD0E8", "#5B4A9E", "#B8E186", "#F7B6C8")
OTHERS = ("#0B5D6B", "#7FD1C7", "#2F2F45", "#D9D2A5", "#8A8A2B", "#F3C6C0", "#6E3B6E", "#9AA5B1")
SPECIAL = {ELSEWHERE: "#BDBDBD", UNFINISHED: "#1B9E4B", LOST: "#5C3317"}
MEANING = {ELSEWHERE: "converged elsewhere", UNFINISHED: "not converged", LOST: "diverged"}
MARKS = {
    "minimum": ("o", "white"),
    "maximum": ("^", "black"),
    "saddle": ("X", "black"),
    "non-strict saddle": ("D", "white"),
    "degenerate": ("s", "white"),
}
# How networks end → colour and hatch; the author's arithmetic alone gives up for noise.
ENDS = {
    "converged": ("#4C86C6", None),
    "not converged": (SPECIAL[UNFINISHED], None),
    "given up for noise (author)": ("#BDBDBD", "////"),
    "diverged": (SPECIAL[LOST], None),
}
COLUMNS = 4
DRAWN_SWEEPS = {
    "dissipation": ("unlike_flow", "dimension"),
    "growth": ("unlike_flow", "dimension"),
    "awb": ("leave", "dimension"),
    "adam": ("leave", "dimension"),
}
AXES = {
    "dissipation": "λ of dissipation control",
    "growth": "growth after acceptance, λ = ½",
    "awb": "lr of Adam without correction",
    "adam": "lr of Adam",
}


def draw(folder: ResultFolder) -> tuple[Path, ...]:
    """Draw every part of a result folder as PNG and PDF."""
    arrays = folder.read_dataset("arrays.nc")
    paths: list[Path] = []
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        for name, figure in _figures(arrays):
            paths += folder.save_figure(figure, name)
    return tuple(paths)


def _figures(arrays: xr.Dataset):
    if "map_label" in arrays and arrays.attrs["sampling"] == "grid":
        for where in arrays.map_problem.values:
            yield f"maps_{where}", portraits(arrays.sel(map_problem=where))
    if "sweep_problem" in arrays:
        yield "sweeps", transitions(arrays)
    if "network_run" in arrays.dims:
        yield "networks", ensembles(arrays)


def transitions(arrays: xr.Dataset) -> Figure:
    """What λ, growth and learning rates do to basins, one curve per problem.

    Args:
        arrays: With those of the sweeps.
    """
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.subplots(2, len(DRAWN_SWEEPS), squeeze=False)
    for column, (name, fields) in enumerate(DRAWN_SWEEPS.items()):
        for row, field in enumerate(fields):
            axes = grid[row, column]
            values = arrays[f"sweep_{name}"].values
            for index, where in enumerate(arrays.sweep_problem.values):
                numbers = arrays[f"sweep_{name}_{field}"].sel(sweep_problem=where).values
                axes.plot(values, numbers, marker="o", label=str(where), ms=4, **line_style(index))
            axes.set_xscale("linear" if name == "dissipation" else "log")
            axes.set_xlabel(AXES[name])
            axes.set_title(TITLES[field])
            axes.grid(True)
            if field != "dimension":
                axes.set_ylim(bottom=-1.0)
    grid[0, 0].axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    grid[1, 0].axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    grid[0, 0].legend()
    return figure


def portraits(arrays: xr.Dataset) -> Figure:
    """The maps of one problem side by side, its critical points by their nature.

    Args:
        arrays: Of one problem.
    """
    where, methods = str(arrays.map_problem.item()), arrays.map_method.values
    columns = min(COLUMNS, len(methods))
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.95 * rows + 1.1), layout="constrained")
    known = landmarks(problem(where))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, methods, strict=False):
        _portrait(axes, arrays.map_label.sel(map_method=name).values, where)
        axes.set_title(str(name))
    for axes in list(grid.flat)[len(methods) :]:
        axes.set_visible(False)
    for row in range(rows):
        grid[row, 0].set_ylabel("b" if problem(where).dim == 2 else "second parameter")
    for column in range(columns):
        last = (len(methods) - 1 - column) // columns
        grid[last, column].set_xlabel("w" if problem(where).dim == 2 else "first parameter")
        grid[last, column].tick_params(labelbottom=True)
    figure.suptitle(f"{where}: where each start ends", x=0.01, ha="left", fontsize=11)
    seen = {int(label) for label in np.unique(arrays.map_label.values)}
    figure.legend(handles=_handles(seen, known), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _portrait(axes: Axes, labels: np.ndarray, where: str) -> None:
    landscape = problem(where)
    known, (low, high) = landmarks(landscape), domain(landscape)
    colours = _colours(known.kinds)
    codes = sorted(colours)
    picture = np.searchsorted(codes, labels)
    axes.imshow(
        picture,
        origin="lower",
        extent=(low, high, low, high),
        cmap=ListedColormap([colours[code] for code in codes]),
        vmin=-0.5,
        vmax=len(codes) - 0.5,
        interpolation="nearest",
    )
    points, classes = known.points.numpy(), known.classes.numpy()
    for number, kind in enumerate(known.kinds):
        place = points[classes == number][:, :2]
        if len(place) == 1:
            mark, face = MARKS[kind]
            axes.plot(*place[0], mark, color=face, markeredgecolor="black", markersize=5)
        else:
            axes.plot(*place.T, color="black" if kind == "maximum" else "white", linewidth=1.0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _colours(kinds: tuple[str, ...]) -> dict[int, str]:
    """Label → colour."""
    minima = [n for n, kind in enumerate(kinds) if kind == "minimum"]
    # Who attracts starts comes first, as there may be more classes than colours.
    others = [n for n, kind in enumerate(kinds) if kind not in ("minimum", "saddle", "maximum")]
    others += [n for n, kind in enumerate(kinds) if kind in ("saddle", "maximum")]
    return {
        **SPECIAL,
        **{n: MINIMA[i % len(MINIMA)] for i, n in enumerate(minima)},
        **{n: OTHERS[i % len(OTHERS)] for i, n in enumerate(others)},
    }


def _handles(seen: set[int], known) -> list:
    colours = _colours(known.kinds)
    names = {**MEANING, **{n: f"to {name}" for n, name in enumerate(known.names)}}
    patches = [
        Patch(facecolor=colours[label], edgecolor="black", linewidth=0.4, label=names[label])
        for label in sorted(seen, key=lambda label: (label < 0, abs(label)))
    ]
    kinds = [kind for kind in MARKS if kind in known.kinds]
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=MARKS[kind][0],
            color=MARKS[kind][1],
            markeredgecolor="black",
            markersize=6,
            label=kind,
        )
        for kind in kinds
    ]
    return [*patches, *marks]


def ensembles(arrays: xr.Dataset) -> Figure:
    """How the networks of each ensemble ended, above the author's own.

    Args:
        arrays: With those of the networks.
    """
    tasks = list(dict.fromkeys(str(name) for name in arrays.network_task.values))
    rows = [int((arrays.network_task == task).sum()) for task in tasks]
    figure = Figure(figsize=(8.5, 0.52 * sum(rows) + 0.6 * len(tasks) + 0.6), layout="constrained")
    grid = figure.subplots(len(tasks), 1, squeeze=False, sharex=True, height_ratios=rows)
    for axes, task in zip(grid[:, 0], tasks, strict=True):
        some = arrays.isel(network_run=np.flatnonzero(arrays.network_task.values == task))
        _bars(axes, some, TASKS[task])
        networks, theirs = ensemble(some, 0).sizes["network"], TASKS[task].networks
        axes.set_title(f"{task}: {networks} networks; narrow bars: the author's {theirs}")
    grid[-1, 0].set_xlabel("share of the networks / %")
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label)
        for label, (colour, hatch) in ENDS.items()
    ]
    interval = Line2D([], [], color="black", marker="|", linewidth=1.0, label="95 % intervals")
    figure.legend(handles=[*handles, interval], loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _bars(axes: Axes, some: xr.Dataset, task: Task) -> None:
    """Two bars per method: the wide one ours, the narrow one the author's."""
    methods = [str(name) for name in some.network_method.values]
    for place, entrant in enumerate(methods):
        ends = ensemble(some, place).network_end.values
        (converged, inside), (lost, outside) = share(ends, ELSEWHERE), share(ends, LOST)
        _stacked(axes, place - 0.14, 0.44, (converged, 100.0 - converged - lost, 0.0, lost))
        for height, edges in {
            place - 0.22: [inside.low, inside.high],
            place - 0.06: [100.0 - outside.high, 100.0 - outside.low],
        }.items():
            seen = [Stroke(linewidth=2.6, foreground="white"), Normal()]
            axes.plot(
                edges, [height] * 2, color="black", marker="|", linewidth=1.0, path_effects=seen
            )
        record = task.records.get(entrant)
        if record is not None:
            theirs = (record.converged, record.unfinished, record.noisy, record.lost)
            _stacked(axes, place + 0.27, 0.24, theirs, alpha=0.65)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(0.0, 100.0)


def _stacked(
    axes: Axes, place: float, height: float, shares: tuple[float, ...], alpha: float = 1.0
) -> None:
    left = 0.0
    for width, (colour, hatch) in zip(shares, ENDS.values(), strict=True):
        axes.barh(
            place,
            width,
            height,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.0,
            alpha=alpha,
        )
        left += width
