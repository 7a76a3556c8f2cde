"""Draws the comparison from its arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from studies.common.results import ResultFolder
from studies.common.style import drawn, line_style
from studies.compare.report import final, finished


def draw(folder: ResultFolder) -> tuple[Path, Path]:
    """Draw `comparison` as PNG and PDF from the arrays of a result folder."""
    return drawn(folder, "comparison", comparison)


def comparison(arrays: xr.Dataset) -> Figure:
    """Training loss and test accuracy against cost, and the end of every method.

    Args:
        arrays: As `run` joins them.
    """
    count = arrays.sizes["optimizer"]
    figure = Figure(figsize=(11, max(4.4, 1.6 + 0.24 * count)), layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=(3.2, 3.2, 1.5, 1.2))
    loss, accuracy = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    end = figure.add_subplot(grid[0, 2])
    rises = figure.add_subplot(grid[0, 3], sharey=end)
    _curves(loss, arrays.training_loss, arrays, logarithmic=True)
    loss.set(yscale="log", title="\ntraining loss / nats")
    _curves(accuracy, 100 * arrays.test_accuracy, arrays, logarithmic=False)
    accuracy.set(title="\ntest accuracy / %")
    _limit_accuracy(accuracy, 100 * arrays.test_accuracy)
    for axes in (loss, accuracy):
        axes.set_xlabel("cost / forward passes of a minibatch")
        axes.set_xlim(left=0)
        axes.margins(x=0.02)
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    _rows(end, arrays)
    _ends(end, 100 * final(arrays.test_accuracy.where(finished(arrays))), missing="diverged")
    end.set_title("test accuracy\nat the end / %")
    _ends(rises, 100 * arrays.energy_increases, missing="–")
    rises.set_title("steps in which\nthe energy rose / %")
    rises.tick_params(axis="y", labelleft=False, length=0)
    _limit_shares(rises)
    seeds = arrays.sizes["seed"]
    figure.suptitle(
        f"{arrays.attrs['data']}: equal cost, {seeds} seed{'s' if seeds > 1 else ''}"
        + (" (lines: mean; bands and bars: ± standard error)" if seeds > 1 else ""),
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


def _curves(axes: Axes, values: xr.DataArray, arrays: xr.Dataset, *, logarithmic: bool) -> None:
    """The mean over seeds, of logarithms where the axis is one, and a band of standard errors."""
    for index, label in enumerate(values.optimizer.values):
        runs = values.sel(optimizer=label).values
        cost = arrays.cost.sel(optimizer=label).values
        seen = np.isfinite(runs) & ((runs > 0) | (not logarithmic))
        shown = np.where(seen, runs, np.nan)
        count = seen.sum(0)
        points = count > 0
        shown, count = shown[:, points], count[points]
        scaled = np.log(shown) if logarithmic else shown
        middle = np.nanmean(scaled, 0)
        error = np.nanstd(scaled, 0) / np.sqrt(np.maximum(count - 1, 1))
        low, high = middle - error, middle + error
        if logarithmic:
            low, middle, high = np.exp(low), np.exp(middle), np.exp(high)
        place = np.nanmax(cost[:, points], 0)
        style = line_style(index)
        axes.fill_between(place, low, high, color=style["color"], alpha=0.18, linewidth=0)
        axes.plot(place, middle, **style)


def _limit_accuracy(axes: Axes, percent: xr.DataArray) -> None:
    """Leaves the first climb below the axis where it would press the rest into a line."""
    ends = final(percent).values
    known = ends[np.isfinite(ends)]
    if len(known) == 0:
        return
    top = known.max()
    bottom = max(0.0, top - 2.5 * max(top - np.median(known), 4.0))
    axes.set_ylim(bottom, min(100.0, top + 0.08 * (top - bottom)))


def _limit_shares(axes: Axes) -> None:
    """From just below 0, so that dots there are whole."""
    top = max(10.0, 1.1 * axes.get_xlim()[1])
    axes.set_xlim(-0.06 * top, top)


def _rows(axes: Axes, arrays: xr.Dataset) -> None:
    """One row per method, first on top, named in the style of its curve."""
    labels = [str(label) for label in arrays.optimizer.values]
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0, pad=26)
    across = axes.get_yaxis_transform()
    for index, name in enumerate(axes.get_yticklabels()):
        style = line_style(index)
        name.set_color(style["color"])
        axes.plot((-0.2, -0.04), (index, index), transform=across, clip_on=False, **style)


def _ends(axes: Axes, values: xr.DataArray, *, missing: str) -> None:
    """A dot and a bar of standard errors per method, a word where no seed has a value."""
    for index, runs in enumerate(values.values):
        known = runs[np.isfinite(runs)]
        color = line_style(index)["color"]
        if len(known) == 0:
            where = axes.get_yaxis_transform()
            axes.text(0.05, index, missing, transform=where, color=color, va="center")
            continue
        error = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else 0.0
        axes.errorbar(known.mean(), index, xerr=error, fmt="o", markersize=4.5, color=color)
    axes.grid(axis="y", visible=False)


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
