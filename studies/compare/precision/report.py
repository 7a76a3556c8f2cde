"""The report of a work-precision comparison, from its arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from studies.common.tables import markdown_table

HEADER = (
    "entrant",
    "claimed order",
    "measured",
    "coarsest error",
    "finest error",
    "cost of the finest",
    "seconds of the finest",
)
MOMENT_HEADER = (
    "entrant",
    "step size",
    "error of ⟨|θ|²⟩ / %",
    "standard error / %",
    "cost per time",
    "seconds",
)
NONE = "–"


def report(arrays: xr.Dataset) -> str:
    """Tables and how to read them, in Markdown."""
    noisy = bool(arrays.attrs["noisy"])
    title = (
        f"{arrays.attrs['flow']} on {arrays.attrs['problem']} to t = {arrays.attrs['time']:g}, "
        f"{arrays.attrs['starts']} {'Brownian paths' if noisy else 'starts'}, step sizes "
        f"{arrays.step_size.values[0]:.3g} to {arrays.step_size.values[-1]:.3g}"
    )
    parts = [f"# Error against cost\n\n{title}", table(arrays), _notes(noisy)]
    if "moment_error" in arrays:
        temperature = f"temperature {arrays.attrs['temperature']:g}"
        parts += [f"## Stationary error\n\n{temperature}", moments(arrays), MOMENT_NOTES]
    return "\n\n".join(parts) + "\n"


def table(arrays: xr.Dataset) -> str:
    """One line per entrant, in Markdown."""
    rows = [_row(arrays.sel(entrant=label)) for label in arrays.entrant.values]
    return markdown_table(HEADER, rows, right=set(HEADER) - {"entrant"})


def moments(arrays: xr.Dataset) -> str:
    """The coarsest and the finest stationary error of each of our schemes, in Markdown."""
    rows = []
    for label in arrays.entrant.values:
        run = arrays.sel(entrant=label)
        if np.isnan(run.moment_error).all():
            continue
        for level in (0, -1):
            one = run.isel(level=level)
            rows.append(
                (
                    str(label),
                    f"{float(one.step_size):.3g}",
                    _number(100 * float(one.moment_error), "{:.2g}"),
                    _number(100 * float(one.moment_standard_error), "{:.2g}"),
                    _number(float(one.moment_cost), "{:.0f}"),
                    _number(float(one.moment_seconds), "{:.2f}"),
                )
            )
    return markdown_table(MOMENT_HEADER, rows, right=set(MOMENT_HEADER) - {"entrant"})


def _row(run: xr.Dataset) -> tuple[str, ...]:
    return (
        str(run.entrant.item()),
        f"{float(run.claimed):g}",
        _number(float(run.measured), "{:.2f}"),
        _number(float(run.error[0]), "{:.1e}"),
        _number(float(run.error[-1]), "{:.1e}"),
        _number(float(run.cost[-1]), "{:.0f}"),
        _number(float(run.seconds[-1]), "{:.2f}"),
    )


def _number(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else NONE


def _notes(noisy: bool) -> str:
    truth = (
        "torchsde's srk at four times the steps of the finest run, on the Brownian path that all "
        "share: a strong error"
        if noisy
        else "`reference_solution`, DOP853 at a relative tolerance of 1e-12"
    )
    claims = (
        "- Claimed are strong orders: a word has 1, since each map takes one increment of the "
        "path; leimkuhler_matthews 1/2, as it shares each increment between two steps.\n"
        if noisy
        else ""
    )
    return (
        f"- Errors are root mean squares over trajectories of the distance at the end to {truth}.\n"
        f"{claims}"
        "- Cost counts forward passes of one trajectory, a gradient as 3. Seconds are of the whole "
        "run, all trajectories together.\n"
        "- Measured is the slope of log error against log cost over the three finest runs whose "
        "errors are between 1e-10 and 0.1. Adaptive solvers (adaptive_heun, bosh3, dopri5, dopri8) "
        "are given tolerances instead of step sizes, from 1e-2 to at least 1e-12 by factors 2 to "
        "their order; what torchdiffeq gives at the end is interpolated, a floor for all of them."
    )


MOMENT_NOTES = (
    "- The error of ⟨|θ|²⟩ is relative to its value under exp(−L/T): exact for quadratics, by "
    "quadrature in one dimension, else by half the smallest step, whose standard error is then "
    "included. Standard errors are by effective sample sizes. Seconds are of all chains together."
)
