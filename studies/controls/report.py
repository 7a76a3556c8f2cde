"""The report of the study of controls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from studies.common.tables import markdown_table
from studies.controls.config import Config

# Whose best rate the others are compared with.
BASELINE = "adam"
SHOWN = {
    "test_accuracy": ("Test accuracy / %", lambda value: f"{100 * value:.2f}"),
    "training_loss": ("Training loss / nats", lambda value: f"{value:.2g}"),
    "last_rate": ("Step size at the end", lambda value: f"{value:.1g}"),
}


def report(arrays: xr.Dataset, config: Config) -> str:
    """Means over seeds, and standard errors, of every method at every rate, as Markdown."""
    batch = f"minibatches of {config.batch}" if config.batch else "all rows at every step"
    labels = f", {100 * config.random_labels:g} % random labels" if config.random_labels else ""
    lines = [
        f"# {config.data}{labels}",
        "",
        f"One hidden layer of {config.hidden}, {batch}, the cost of {config.epochs} epochs of "
        f"gradients for every run (a loss 1, a gradient 3), {config.seeds} "
        f"seed{'s' if config.seeds > 1 else ''}: mean ± standard error.",
    ]
    for name, (title, written) in SHOWN.items():
        lines += ["", f"## {title}", "", _table(arrays[name], config, written)]
    if BASELINE in config.methods:
        rate, points = points_above_best(arrays)
        title = f"Test accuracy, points above {BASELINE} at its best rate ({rate:g})"
        lines += ["", f"## {title}", "", _table(points, config, lambda value: f"{value:.2f}")]
    return "\n".join([*lines, ""])


def points_above_best(arrays: xr.Dataset) -> tuple[float, xr.DataArray]:
    """Test accuracies above those of the baseline at its best rate, seed by seed.

    Args:
        arrays: As `run` joins them, the baseline among them.

    Returns:
        The rate at which the baseline is best in the mean, and the differences in points. Runs of
        a seed share weights, minibatches and labels, so these differ less than runs do.
    """
    accuracy = 100 * arrays.test_accuracy
    baseline = accuracy.sel(optimizer=BASELINE)
    rate = baseline.mean("seed").idxmax("rate")
    return float(rate), accuracy - baseline.sel(rate=rate).drop_vars(["optimizer", "rate"])


def _table(values: xr.DataArray, config: Config, written: Callable[[float], str]) -> str:
    """A row per method, a column per rate."""
    rates = [f"{rate:g}" for rate in config.rates]
    rows = [
        [
            method,
            *(_cell(values.sel(optimizer=method, rate=rate), written) for rate in config.rates),
        ]
        for method in config.methods
    ]
    return markdown_table(["rate", *rates], rows, right=rates)


def _cell(runs: xr.DataArray, written: Callable[[float], str]) -> str:
    values = runs.values
    if not np.isfinite(values).all():
        return "diverged"
    mean = written(values.mean())
    if len(values) == 1:
        return mean
    return f"{mean} ± {written(values.std(ddof=1) / len(values) ** 0.5)}"
