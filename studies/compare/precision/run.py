"""Computes errors and costs: arrays, manifest and report, in a result folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

import flowopt as fo
from flowopt.errors import ConfigurationError, DataError
from flowopt.registry import FLOWS, PROBLEMS
from studies.common.candidates import candidate
from studies.common.devices import one_thread
from studies.common.manifest import write_results
from studies.common.results import ResultFolder
from studies.compare.precision.config import Config, planned
from studies.compare.precision.entrants import Entrant, Setting, entrants, fitting_schemes
from studies.compare.precision.report import report
from studies.compare.precision.slopes import measured_slope
from studies.compare.precision.stationary import stationary_error, true_moment

GRADIENT_COST = fo.forward_passes({"gradients": 1})
# The path is asked by a run with so many times the steps of the finest entrant.
FINER = 4


def run(config: Config, *, out: Path, jobs: int = 1) -> ResultFolder:
    """Follow a flow with every entrant and every step size.

    Args:
        config: What to compare.
        out: The folder of all results.
        jobs: Only 1: runs are timed.

    Returns:
        The folder, with `arrays.nc`, `manifest.json` and `report.md`.

    Raises:
        FlowoptError: The configuration can not be run.
        KeyboardInterrupt: From the keyboard; finished entrants are kept.
    """
    if jobs != 1:
        raise ConfigurationError(f"--jobs {jobs}: runs are timed, so there is one at a time")
    plan = planned(config)
    flow, words = flow_and_words(plan)
    problem = PROBLEMS[plan.problem]()
    generator = torch.Generator().manual_seed(plan.seed)
    count = plan.paths if flow.noisy else plan.starts
    start = 0.5 * torch.randn(count, problem.dim, generator=generator, dtype=torch.float64)
    setting = Setting(flow, problem, start, cast(float, plan.time))
    folder = ResultFolder("compare", plan, out=out)
    with one_thread():
        setting, truth = _with_truth(folder, setting, plan)
        arrays = _errors(folder, setting, truth, plan, words)
        if flow.noisy and "temperature" in flow.hyperparameters:
            moments = _moments(folder, setting, plan, words)
            arrays = arrays.merge(moments.reindex(entrant=arrays.entrant))
    arrays.attrs |= {"problem": plan.problem, "flow": flow.name, "noisy": int(flow.noisy)}
    arrays.attrs |= {"time": setting.time, "starts": count, "temperature": plan.temperature}
    seconds, gradients = float(arrays.seconds.sum()), float(arrays.cost.sum()) / GRADIENT_COST
    counts = {"gradients": gradients * count}
    text = report(arrays)
    write_results(folder, arrays, text, plan, seconds=seconds, counts=counts, device="cpu")
    return folder


def flow_and_words(plan: Config) -> tuple[fo.Flow, tuple[str, ...]]:
    """The flow, at the temperature of the plan, and the words that fit it."""
    if plan.flow in FLOWS:
        words = FLOWS[plan.flow].words
        flow = candidate(f"{plan.flow}:{words[0]}").flow
    else:
        flow = candidate(plan.flow).flow
        words = ("".join(flow.letters),)
    if "temperature" in flow.hyperparameters:
        flow = flow.with_hyperparameters(temperature=plan.temperature)
    return flow, words


def step_numbers(plan: Config) -> list[int]:
    """Steps of the runs, the coarsest first."""
    return [cast(int, plan.steps) * 2**level for level in range(plan.levels)]


def _with_truth(folder: ResultFolder, setting: Setting, plan: Config) -> tuple[Setting, Tensor]:
    """The setting, with a Brownian path where there is noise, and the true ends (starts, dim)."""
    if not setting.flow.noisy:
        kept = _unit(folder, "true flow", lambda: _reference(setting))
        return setting, torch.from_numpy(kept.position.values)
    system = fo.adapters.to_torchsde(setting.flow, setting.problem)
    # A scheme may look one step ahead.
    end = setting.time * (1 + 1 / step_numbers(plan)[0])
    path = system.path(system.pack(setting.start), 0.0, end, seed=plan.seed)
    setting = Setting(setting.flow, setting.problem, setting.start, setting.time, path)
    finest = next(e for e in entrants(setting.flow, ()) if e.label == "torchsde srk")
    # Asked in this order every time, so that the path is the same when a run is resumed.
    return setting, finest.run(setting, FINER * step_numbers(plan)[-1], 0).position


def _reference(setting: Setting) -> xr.Dataset:
    exact = fo.adapters.reference_solution(
        setting.flow, setting.problem, setting.start, [setting.time]
    )
    return xr.Dataset({"position": (("start", "dim"), exact.position[0].numpy())})


def _errors(
    folder: ResultFolder, setting: Setting, truth: Tensor, plan: Config, words: tuple[str, ...]
) -> xr.Dataset:
    steps = step_numbers(plan)
    rows, found = list(entrants(setting.flow, words)), []
    for entrant in tqdm(rows, unit="entrant", disable=None):
        found.append(
            _unit(folder, entrant.label, lambda e=entrant: _levels(e, setting, truth, steps))
        )
    arrays = xr.concat(found, "entrant").assign_coords(entrant=[e.label for e in rows])
    arrays["family"] = ("entrant", [entrant.family for entrant in rows])
    arrays["claimed"] = ("entrant", [entrant.claimed for entrant in rows])
    slopes = [
        measured_slope(cost, error) for cost, error in zip(arrays.cost, arrays.error, strict=True)
    ]
    arrays["measured"] = ("entrant", slopes)
    arrays["step_size"] = ("level", setting.time / np.array(steps))
    return arrays


def _levels(entrant: Entrant, setting: Setting, truth: Tensor, steps: list[int]) -> xr.Dataset:
    """Root mean square error over starts, cost and seconds of each number of steps."""
    ends = [entrant.run(setting, number, level) for level, number in enumerate(steps)]
    errors = [(end.position - truth).square().sum(-1).mean().sqrt().item() for end in ends]
    return xr.Dataset(
        {
            "error": ("level", errors),
            "cost": ("level", [GRADIENT_COST * end.gradients for end in ends]),
            "seconds": ("level", [end.seconds for end in ends]),
        }
    )


def _moments(
    folder: ResultFolder, setting: Setting, plan: Config, words: tuple[str, ...]
) -> xr.Dataset:
    """Stationary errors of our schemes, along "entrant" and "level"."""
    sizes = [setting.time / number for number in step_numbers(plan)]
    schemes = fitting_schemes(setting.flow, words)
    best = max(schemes, key=lambda scheme: scheme.order(setting.flow))
    truth = true_moment(setting, best, sizes[-1] / 2, plan)
    labels = [entrant.label for entrant in entrants(setting.flow, words)]
    found = []
    for label, scheme in zip(labels, schemes, strict=False):
        levels = []
        for level, size in enumerate(sizes):
            compute = partial(stationary_error, setting, scheme, size, truth, plan)
            levels.append(_unit(folder, f"moments, {label}, level {level}", compute))
        found.append(xr.concat(levels, "level"))
    return xr.concat(found, "entrant").assign_coords(entrant=labels[: len(found)])


def _unit(folder: ResultFolder, name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """What an earlier run finished, or is finished now."""
    if folder.unit(name) is None:
        folder.finish_unit(name, compute())
    unit = folder.unit(name)
    if unit is None:
        raise DataError(f"{name} in {folder.path} was damaged meanwhile: run again")
    return unit
