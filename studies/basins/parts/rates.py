"""Adam and Lyapunov-controlled Adam at learning rates over three decades."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from studies.basins.config import Config
from studies.basins.maps import domain, ends, landmarks, problem, uniform
from studies.basins.methods import COARSE, method
from studies.basins.statistics import TRUE_FLOW, trap_violations
from studies.common.tables import markdown_table

WHERE = "poly_two"
RATES = (1e-3, 0.01, 0.1, 0.3, 1.0)
# Method → title of its columns.
TITLES = {
    "lc_adam": "controlled",
    "lc_adam_restarted": "with restarts",
    "torchs_adam": "Adam",
}
COLUMNS = ("converged / %", "cost", "left / %")
# Forward passes within which a trajectory has to converge; a step takes a gradient at least.
AFFORDABLE = 2000
MOST_STEPS = AFFORDABLE // fo.forward_passes({"gradients": 1})


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each method and rate."""
    return {
        _unit(name, rate): lambda name=name, rate=rate: _run(name, rate, config)
        for name in TITLES
        for rate in RATES
    }


def _unit(name: str, rate: float) -> str:
    return f"rate {name}@{rate:g}"


def _run(name: str, rate: float, config: Config) -> xr.Dataset:
    """Shares in percent, cost as a mean over what converged."""
    landscape, start = problem(WHERE), _starts(config)
    chosen = replace(method(f"{name}@{rate:g}"), tolerance=COARSE)
    found = ends(chosen, landscape, start, most_steps=MOST_STEPS)
    home = ends(method(TRUE_FLOW), landscape, start)
    labels, cost = (torch.from_numpy(values) for values in (found.label.values, found.cost.values))
    there = (labels >= 0) & (cost <= AFFORDABLE)
    flow = torch.from_numpy(home.label.values)
    return xr.Dataset(
        {
            "rate_converged": 100.0 * float(there.double().mean()),
            "rate_cost": float(cost[there].double().mean()) if there.any() else math.nan,
            "rate_left": trap_violations(labels, flow, landscape.loss(start), landmarks(landscape)),
        }
    )


def _starts(config: Config) -> Tensor:
    return uniform(*domain(problem(WHERE)), config.starts, config.seed)


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All along "rate_method" and "rate"."""
    rows = [xr.concat([found[_unit(name, rate)] for rate in RATES], "rate") for name in TITLES]
    arrays = xr.concat(rows, "rate_method")
    return arrays.assign_coords(rate_method=list(TITLES), rate=list(RATES))


def section(arrays: xr.Dataset, config: Config) -> str:
    """The table."""
    header = ("lr", *(f"{name}: {x}" for name in TITLES.values() for x in COLUMNS))
    rows = [
        (f"{rate:g}", *(cell for name in TITLES for cell in _cells(arrays, name, rate)))
        for rate in RATES
    ]
    landscape = problem(WHERE)
    trapped = int((landscape.loss(_starts(config)) < landmarks(landscape).lowest_saddle).sum())
    return (
        f"## Learning rates\n\n{config.starts} random starts on {WHERE} until |∇L| ≤ {COARSE:g}, "
        f"within {AFFORDABLE} forward passes; cost is a mean over what converged. Left: of the "
        f"{trapped} starts below the lowest saddle, those that end in another well.\n\n"
        + markdown_table(header, rows, right=header)
    )


def _cells(arrays: xr.Dataset, name: str, rate: float) -> tuple[str, ...]:
    one = arrays.sel(rate_method=name, rate=rate)
    share, cost, left = (float(one[f"rate_{key}"]) for key in ("converged", "cost", "left"))
    return f"{share:.2f}", f"{cost:.0f}", f"{left:.2f}"
