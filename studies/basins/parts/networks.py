"""Ensembles of small networks on data, each from weights of its own: how they end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import flowopt as fo
from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED, Interval
from studies.basins.author_networks import (
    MOST_STEPS,
    TASKS,
    Ends,
    Task,
    half_squared_error,
    training_data,
)
from studies.basins.config import Config
from studies.basins.maps import moved
from studies.basins.methods import method
from studies.basins.parts.table import standard_errors
from studies.common.tables import markdown_table

# Networks of a unit: what an interruption may cost.
TOGETHER = 500
# In the place of a network that a smaller ensemble has not.
NONE = -128
CLASSES = {"converged": ELSEWHERE, "lost": LOST, "unfinished": UNFINISHED}
HEADER = (
    "method",
    "converged / %",
    "author",
    "diverged / %",
    "author",
    "author's noise",
    "errors",
    "median loss",
    "median steps",
)


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each task, method and group of networks."""
    return {
        _unit(name, entrant, first): lambda name=name, entrant=entrant, first=first: _trained(
            name, entrant, first, config
        )
        for name, entrant in _runs(config)
        for first in range(0, replicas(name, config), TOGETHER)
    }


def replicas(name: str, config: Config) -> int:
    """Networks of a task, no more than the author's: more would make no comparison sharper."""
    return min(config.replicas, TASKS[name].networks)


def _runs(config: Config) -> list[tuple[str, str]]:
    """Task and method of each ensemble."""
    return [
        (name, entrant)
        for name in config.networks
        for entrant in config.network_methods or TASKS[name].records
    ]


def _unit(name: str, entrant: str, first: int) -> str:
    return f"network {name} {entrant} from {first}"


def _problem(task: Task, config: Config) -> fo.problems.Network:
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(zip(task.layers, task.layers[1:], strict=False)):
        layers += [task.activation()] if i else []
        layers.append(nn.Linear(inside, outside))
    module = nn.Sequential(*layers, *([task.last()] if task.last else [])).double()
    batch = None
    if config.network_batch:
        batch = fo.problems.Minibatches(config.network_batch, shared=config.network_shared)
    return fo.problems.network(module, half_squared_error, training_data(task), batch=batch)


def _start(task: Task, problem: fo.problems.Network, count: int, seed: int) -> dict[str, Tensor]:
    """First weights; those of a network do not depend on how many there are."""
    generator = torch.Generator().manual_seed(seed)
    start = {}
    for name, value in problem.start(TOGETHER).items():
        if task.half_width is not None:
            numbers = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            start[name] = task.half_width * (2.0 * numbers - 1.0)
        elif value.ndim == 2:
            start[name] = torch.zeros_like(value)
        else:
            numbers = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            start[name] = numbers / math.sqrt(value.shape[-1])
    return {name: value[:count] for name, value in start.items()}


def _trained(name: str, entrant: str, first: int, config: Config) -> xr.Dataset:
    """How some networks of an ensemble end, with what loss and after how many steps."""
    task = TASKS[name]
    problem = _problem(task, config)
    chosen = replace(method(entrant), tolerance=task.tolerance)
    together = min(TOGETHER, replicas(name, config) - first)
    seed = config.seed + first
    start = _start(task, problem, together, seed)
    solution = moved(chosen, problem, start, most_steps=config.network_steps, seed=seed)
    return xr.Dataset(
        {
            "network_end": ("network", _ends(solution, problem, task.tolerance).numpy()),
            "network_loss": ("network", problem.loss(solution.position).numpy()),
            "network_steps": ("network", solution.steps.to(torch.int32).numpy()),
        }
    )


def _ends(solution: fo.Solution, problem: fo.problems.Network, tolerance: float) -> Tensor:
    """(network,), int8: labels of an end, on all rows, by the author's rule."""
    leaves = problem.leaves(solution.position)
    gradient = _flat(problem.evaluate(leaves, None).gradient)
    # What diverged keeps its last finite state, where the gradient may be of any size.
    diverged = (solution.status == fo.Status.DIVERGED)[:, None]
    position = _flat(leaves)
    labels = fo.diagnostics.end_labels(
        position,
        gradient.masked_fill(diverged, torch.nan),
        position.new_empty(0, position.shape[1]),
        tolerance=tolerance,
    )
    return labels.to(torch.int8)


def _flat(leaves: tuple[Tensor, ...]) -> Tensor:
    """(network, parameter)."""
    return torch.cat([leaf.flatten(1) for leaf in leaves], 1)


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All ensembles along "network_run", filled up to the largest."""
    runs = []
    for name, entrant in _runs(config):
        firsts = range(0, replicas(name, config), TOGETHER)
        run = xr.concat([found[_unit(name, entrant, first)] for first in firsts], "network")
        runs.append(run.assign_coords(network=np.arange(run.sizes["network"])))
    fill = {"network_end": NONE, "network_loss": math.nan, "network_steps": -1}
    arrays = xr.concat(runs, "network_run", join="outer", fill_value=fill)
    return arrays.drop_vars("network").assign(
        network_task=("network_run", [name for name, _ in _runs(config)]),
        network_method=("network_run", [entrant for _, entrant in _runs(config)]),
    )


def ensemble(arrays: xr.Dataset, place: int) -> xr.Dataset:
    """One run, with the networks that it has."""
    run = arrays.isel(network_run=place)
    return run.isel(network=run.network_end.values != NONE)


def share(ends: np.ndarray, label: int) -> tuple[float, Interval]:
    """Percent of the networks that end with a label, and its 95 % interval."""
    count = int((ends == label).sum())
    low, high = fo.diagnostics.binomial_interval(count, len(ends))
    return 100.0 * count / len(ends), Interval(100.0 * low, 100.0 * high)


def farthest(ends: np.ndarray, record: Ends, networks: int) -> float:
    """Standard errors between ours and the author's shares, of the class where they are most.

    A network that the author's arithmetic gave up may have gone on to any end: a share of his is
    one between itself and itself plus these.
    """
    distances = []
    for name, label in CLASSES.items():
        ours, theirs = share(ends, label)[0], getattr(record, name)
        nearest = min(max(ours, theirs), theirs + record.noisy)
        distances.append(standard_errors(ours, len(ends), nearest, networks))
    return max(distances, key=abs)


def section(arrays: xr.Dataset, config: Config) -> str:
    """One table per task, and what is known of the records."""
    tables = []
    for name in config.networks:
        some = arrays.isel(network_run=np.flatnonzero(arrays.network_task.values == name))
        task = TASKS[name]
        rows = [_row(ensemble(some, i), task, config) for i in range(some.sizes["network_run"])]
        title = (
            f"### {name}\n\n{'–'.join(map(str, task.layers))}, {task.activation.__name__}, "
            f"{replicas(name, config)} networks (author: {task.networks}), "
            f"|g| ≤ {task.tolerance:g}.\n\n"
        )
        note = f"Of the records: {task.note}"
        tables.append(f"{title}{markdown_table(HEADER, rows, right=HEADER[1:])}\n\n{note}")
    return f"## Small networks on data\n\n{_introduction(config)}\n\n" + "\n\n".join(tables)


def _introduction(config: Config) -> str:
    text = (
        "Ensembles on the author's data, from weights of his distributions (other numbers), with "
        "95 % intervals. His noise: networks that his arithmetic, which estimates its own "
        "rounding, gave up for want of a significant digit; here they go on, so that our shares "
        "lie between his and his plus these. Errors: the largest distance from there among the "
        "three shares (converged, diverged, the rest), in standard errors."
    )
    if config.network_batch:
        rows = "the same rows for all" if config.network_shared else "rows of its own for each"
        text += (
            f" Ours see {config.network_batch} rows per step, {rows}, the author's saw all: no "
            "errors are given."
        )
    if config.network_steps < MOST_STEPS:
        text += (
            f" Ours have at most {config.network_steps} steps, the author's had {MOST_STEPS}: "
            "fewer converge, and no errors are given."
        )
    return text


def _row(run: xr.Dataset, task: Task, config: Config) -> tuple[str, ...]:
    ends, losses = run.network_end.values, run.network_loss.values
    entrant = str(run.network_method.item())
    record = task.records.get(entrant)
    theirs, errors = ["–"] * 3, "–"
    if record is not None:
        theirs = [f"{percent:.2f}" for percent in (record.converged, record.lost, record.noisy)]
        if not config.network_batch and config.network_steps >= MOST_STEPS:
            errors = f"{farthest(ends, record, task.networks):+.1f}"
    kept = losses[ends != LOST]
    median = f"{np.median(kept):.3g}" if len(kept) else "–"
    converged, lost = (_with_interval(ends, label) for label in (ELSEWHERE, LOST))
    steps = f"{np.median(run.network_steps.values):.0f}"
    return (entrant, converged, theirs[0], lost, theirs[1], theirs[2], errors, median, steps)


def _with_interval(ends: np.ndarray, label: int) -> str:
    percent, (low, high) = share(ends, label)
    return f"{percent:.1f} ({low:.1f}–{high:.1f})"
