"""Draws errors against costs from their arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from studies.common.results import ResultFolder
from studies.common.style import drawn, line_style

MARKERS = {"flowopt": "o", "torchdiffeq": "s", "torchsde": "s"}


def draw(folder: ResultFolder) -> tuple[Path, Path]:
    """Draw `precision` as PNG and PDF from the arrays of a result folder."""
    return drawn(folder, "precision", precision)


def precision(arrays: xr.Dataset) -> Figure:
    """Error against cost and seconds; where there is noise, the stationary error too.

    Args:
        arrays: As `run` joins them.
    """
    stationary = "moment_error" in arrays
    figure = Figure(figsize=(12 if stationary else 9.5, 4.8), layout="constrained")
    axes = list(figure.subplots(1, 3 if stationary else 2))
    _curves(axes[0], arrays, arrays.cost, arrays.error)
    axes[0].set_xlabel("cost per trajectory / forward passes")
    _curves(axes[1], arrays, arrays.seconds, arrays.error)
    axes[1].set_xlabel("time of all trajectories / s")
    kind = "strong error" if arrays.attrs["noisy"] else "error"
    axes[0].set_ylabel(f"{kind} of θ at t = {arrays.attrs['time']:g}")
    axes[1].sharey(axes[0])
    if stationary:
        _curves(axes[2], arrays, arrays.moment_cost, arrays.moment_error)
        _limit(axes[2], arrays)
        axes[2].set_xlabel("cost per unit of time / forward passes")
        axes[2].set_ylabel("relative error of ⟨|θ|²⟩")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="measured order")
    figure.suptitle(
        f"{arrays.attrs['flow']} on {arrays.attrs['problem']}: "
        "circles are flowopt's schemes, squares other solvers",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


def _curves(axes: Axes, arrays: xr.Dataset, cost: xr.DataArray, error: xr.DataArray) -> None:
    for index, label in enumerate(arrays.entrant.values):
        x, y = cost.sel(entrant=label).values, error.sel(entrant=label).values
        shown = np.isfinite(x) & np.isfinite(y) & (y > 0)
        if not shown.any():
            continue
        order = float(arrays.measured.sel(entrant=label))
        axes.plot(
            x[shown],
            y[shown],
            marker=MARKERS[str(arrays.family.sel(entrant=label).item())],
            markersize=3.5,
            linewidth=1.1,
            label=f"{label}  {order:.1f}" if np.isfinite(order) else str(label),
            **line_style(index),
        )
    axes.set(xscale="log", yscale="log")
    # Costs span a decade or two, errors many.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _limit(axes: Axes, arrays: xr.Dataset) -> None:
    """A grey line at the standard error, below which errors are chance."""
    known = arrays.where(arrays.moment_error.notnull().any("level"), drop=True)
    doubt = known.moment_standard_error.mean("entrant").values
    cost = known.moment_cost.min("entrant").values
    axes.plot(cost, doubt, color="#8C8C8C", linewidth=5, alpha=0.5, zorder=0)
    axes.annotate(
        "standard error",
        (cost[-1], doubt[-1]),
        (0, 5),
        textcoords="offset points",
        ha="right",
        color="#5F5F5F",
        fontsize=8,
    )
