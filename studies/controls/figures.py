"""Draws the study of controls from its arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from studies.common.results import ResultFolder
from studies.common.style import drawn, line_style


def draw(folder: ResultFolder) -> tuple[Path, Path]:
    """Draw `rates` as PNG and PDF from the arrays of a result folder."""
    return drawn(folder, "rates", by_rate)


def by_rate(arrays: xr.Dataset) -> Figure:
    """Training loss and test error at the end against the rate, a line per method.

    Args:
        arrays: As `run` joins them.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    _lines(loss, arrays.training_loss)
    loss.set_title("training loss / nats")
    _lines(error, 100 * (1 - arrays.test_accuracy))
    error.set_title("test error / %")
    for axes in (loss, error):
        axes.set(xscale="log", xlabel="learning rate, or first step of the control")
        lowest, highest = axes.dataLim.intervaly
        # Within a decade a logarithmic axis has hardly a tick.
        if highest > 10 * lowest:
            axes.set_yscale("log")
            for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                formatted(FuncFormatter(_plain))
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


def _lines(axes: Axes, values: xr.DataArray) -> None:
    """Geometric means over seeds, in a band from the lowest to the highest."""
    for index, method in enumerate(values.optimizer.values):
        runs = values.sel(optimizer=method).transpose("rate", "seed").values
        known = np.where(np.isfinite(runs) & (runs > 0), runs, np.nan)
        seen = np.isfinite(known).all(axis=1)
        rates, known = values.rate.values[seen], known[seen]
        middle = np.exp(np.log(known).mean(axis=1))
        style = line_style(index)
        axes.plot(rates, middle, marker="o", markersize=3.5, label=method, **style)
        low, high = known.min(axis=1), known.max(axis=1)
        axes.fill_between(rates, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _plain(value: float, _: int) -> str:
    """Without powers of ten, and only for 1, 2 and 5."""
    return f"{value:g}" if f"{value:.0e}"[0] in "125" else ""
