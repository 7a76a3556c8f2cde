"""The report of a comparison, from its arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr

import flowopt as fo
from studies.common.candidates import Candidate
from studies.common.tables import markdown_table
from studies.compare.config import TASKS, Plan

HEADER = (
    "method",
    "flow",
    "word",
    "step size",
    "training loss",
    "test accuracy / %",
    "cost",
    "seconds",
    "energy up / %",
    "status",
)
NONE = "–"
# Beyond, decimals say nothing: the run went astray.
LARGE = 1e4
NOTES = """\
- Every method had the same cost: a loss costs 1 forward pass of a minibatch, a gradient 3, and a
  method takes as many steps as its gradients per step allow. What is spent on looking (loss and
  accuracy over all rows, energies) is neither in the cost nor in the seconds.
- Training loss is over all training rows, in nats; loss, accuracy, cost and seconds are means over
  the seeds that ended with finite numbers, ± the standard error of the mean.
- "Energy up" is the share of steps in which the first energy that the flow declares rose, with the
  loss of the step's own minibatch before and after it. That is an estimate on few rows: a step
  along the gradient of a minibatch may lower its loss and raise that of all rows."""
SHORT_STATUS = {fo.Status.STEPS_TAKEN: "finished", fo.Status.DIVERGED: "diverged"}


def report(arrays: xr.Dataset, candidates: Sequence[Candidate], plan: Plan) -> str:
    """A table, how to read it, and the settings of every method, in Markdown.

    Args:
        arrays: As `run` joins them.
        candidates: The methods, in the order of the arrays.
        plan: What was run.
    """
    task = TASKS[plan.data]
    title = (
        f"{plan.data}: one hidden layer of {plan.hidden} ({task.activation.__name__}), "
        f"minibatches of {plan.batch}, {plan.epochs:g} epochs of gradients, "
        f"{plan.seeds} seed{'s' if plan.seeds > 1 else ''}, {plan.device}"
    )
    settings = "\n".join(f"- {entry.label}: {_settings(entry)}" for entry in candidates)
    return (
        f"# Comparison at equal cost\n\n{title}\n\n{table(arrays)}\n\n"
        f"{NOTES}\n\n## Settings\n\n{settings}\n"
    )


def table(arrays: xr.Dataset) -> str:
    """One line per method, in Markdown."""
    rows = [_row(arrays.sel(optimizer=label)) for label in arrays.optimizer.values]
    right = set(HEADER) - {"method", "flow", "word", "status"}
    return markdown_table(HEADER, rows, right=right)


def final(values: xr.DataArray) -> xr.DataArray:
    """The last known value along "point"."""
    last = values.notnull().cumsum("point").argmax("point")
    return values.isel(point=last)


def finished(arrays: xr.Dataset) -> xr.DataArray:
    """Which runs ended with finite numbers."""
    return arrays.status == int(fo.Status.STEPS_TAKEN)


def _row(runs: xr.Dataset) -> tuple[str, ...]:
    whole = runs.where(finished(runs), drop=True)
    return (
        str(runs.optimizer.item()),
        str(runs.flow.item()),
        str(runs.word.item()),
        f"{runs.step_size.item():.4g}",
        _mean_and_error(final(whole.training_loss), "{:.3g}"),
        _mean_and_error(100 * final(whole.test_accuracy), "{:.2f}"),
        _mean(whole.cost.max("point"), "{:.0f}"),
        _mean(whole.seconds, "{:.2f}"),
        _mean(100 * runs.energy_increases, "{:.1f}"),
        _statuses(runs.status.values),
    )


def _mean(values: xr.DataArray, form: str) -> str:
    known = values.values[np.isfinite(values.values)]
    return form.format(known.mean()) if len(known) else NONE


def _mean_and_error(values: xr.DataArray, form: str) -> str:
    """The error with one digit, the mean with as many decimals; the form where there is none."""
    known = values.values[np.isfinite(values.values)]
    error = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else 0.0
    if error == 0.0 or abs(known.mean()) >= LARGE:
        return _mean(values, form)
    decimals = max(0, -math.floor(math.log10(float(f"{error:.0e}"))))
    return f"{known.mean():.{decimals}f} ± {error:.{decimals}f}"


def _statuses(codes: np.ndarray) -> str:
    counts = Counter(fo.Status(int(code)) for code in codes)
    return ", ".join(
        f"{number} {SHORT_STATUS.get(status, str(status))}" for status, number in counts.items()
    )


def _settings(entry: Candidate) -> str:
    if entry.method is not None:
        given = {name: value for name, value in entry.method.settings.items() if float(value) != 0}
    else:
        given = {"h": entry.step_size, **entry.flow.hyperparameters}
    return ", ".join(f"{name} = {float(value):.6g}" for name, value in given.items())
