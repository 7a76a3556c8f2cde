"""The report of the study of controls."""

from __future__ import annotations

import numpy as np
import xarray as xr

from studies.common.tables import markdown_table
from studies.controls.config import Config

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
    rates = [f"{rate:g}" for rate in config.rates]
    for name, (title, written) in SHOWN.items():
        rows = [
            [
                method,
                *(
                    _cell(arrays[name].sel(optimizer=method, rate=rate), written)
                    for rate in arrays.rate.values
                ),
            ]
            for method in config.methods
        ]
        lines += ["", f"## {title}", "", markdown_table(["rate", *rates], rows, right=rates)]
    return "\n".join([*lines, ""])


def _cell(runs: xr.DataArray, written) -> str:
    values = runs.values
    if not np.isfinite(values).all():
        return "diverged"
    mean = written(values.mean())
    if len(values) == 1:
        return mean
    return f"{mean} ± {written(values.std(ddof=1) / len(values) ** 0.5)}"
