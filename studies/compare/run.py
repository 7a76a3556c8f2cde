"""Computes the comparison: arrays, manifest and report, in a result folder."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from flowopt.errors import ConfigurationError
from studies.common import data
from studies.common.candidates import Candidate, candidate
from studies.common.devices import checked_device, in_processes, one_thread
from studies.common.manifest import write_results
from studies.common.results import ResultFolder
from studies.compare.config import Config, Plan, planned
from studies.compare.report import report
from studies.compare.training import CURVES, steps_within_budget, train


def run(config: Config, *, out: Path, jobs: int = 1) -> ResultFolder:
    """Train every method with every seed.

    Args:
        config: What to compare.
        out: The folder of all results.
        jobs: How many runs at a time, each in a process of its own.

    Returns:
        The folder, with `arrays.nc`, `manifest.json` and `report.md`.

    Raises:
        FlowoptError: The configuration can not be run.
        KeyboardInterrupt: From the keyboard; finished runs are kept.
    """
    candidates = tuple(candidate(method) for method in config.methods)
    plan = planned(config, candidates)
    device = checked_device(plan.device)
    dataset = data.load(plan.data).to(device)
    _check_batch(plan, dataset)
    steps = {entry.label: steps_within_budget(entry, plan, dataset) for entry in candidates}
    folder = ResultFolder("compare", plan, out=out)
    with one_thread():
        _compute(folder, candidates, plan, dataset, steps, jobs)
        arrays = _joined(folder, candidates, plan)
        text = report(arrays, candidates, plan)
        seconds = float((arrays.seconds + arrays.seconds_observing).sum())
        counts = {"gradients": int(arrays.gradients.sum()), "steps": int(arrays.steps.sum())}
        write_results(folder, arrays, text, plan, seconds=seconds, counts=counts, device=device)
    return folder


def _check_batch(plan: Plan, dataset: data.Dataset) -> None:
    rows = len(dataset.train_inputs)
    if plan.batch > rows:
        raise ConfigurationError(
            f"batch came as {plan.batch}, expected at most the {rows} training rows of {plan.data}"
        )


def _unit(entry: Candidate, seed: int) -> str:
    return f"{entry.label}, seed {seed}"


def _compute(
    folder: ResultFolder,
    candidates: tuple[Candidate, ...],
    plan: Plan,
    dataset: data.Dataset,
    steps: dict[str, int],
    jobs: int,
) -> None:
    """Finish every unit that is not finished yet."""
    every = [(entry, seed) for seed in range(plan.seeds) for entry in candidates]
    missing = [(entry, seed) for entry, seed in every if folder.unit(_unit(entry, seed)) is None]
    total = sum(steps[entry.label] for entry, _ in missing)
    with tqdm(total=total, unit="step", unit_scale=True, disable=None) as bar:

        def advanced(new_steps: int) -> None:
            bar.update(new_steps)

        if jobs == 1:
            for entry, seed in missing:
                bar.set_description(_unit(entry, seed))
                unit = train(entry, plan, dataset, seed, advanced)
                folder.finish_unit(_unit(entry, seed), unit)
        else:
            calls = ((entry, plan, seed) for entry, seed in missing)
            for entry, seed, unit in in_processes(_train_apart, calls, jobs):
                folder.finish_unit(_unit(entry, seed), unit)
                bar.update(steps[entry.label])


def _train_apart(entry: Candidate, plan: Plan, seed: int) -> tuple[Candidate, int, xr.Dataset]:
    dataset = data.load_once(plan.data, plan.device)
    with one_thread():
        return entry, seed, train(entry, plan, dataset, seed, lambda _: None)


def _joined(folder: ResultFolder, candidates: tuple[Candidate, ...], plan: Plan) -> xr.Dataset:
    """All units along "optimizer" and "seed", with what the figures say about each method."""
    seeds = range(plan.seeds)
    methods = [
        xr.concat([folder.finished(_unit(entry, seed)) for seed in seeds], "seed")
        for entry in candidates
    ]
    arrays = xr.concat(methods, "optimizer")
    arrays = arrays.assign_coords(optimizer=[entry.label for entry in candidates], seed=list(seeds))
    for name, meaning in CURVES.items():
        arrays[name].attrs["long_name"] = meaning
    arrays["cost"].attrs["long_name"] = "forward-equivalents of one minibatch: gradient 3, loss 1"
    arrays["step_size"] = ("optimizer", [entry.step_size for entry in candidates])
    arrays["flow"] = ("optimizer", [entry.flow.name for entry in candidates])
    arrays["word"] = ("optimizer", [entry.word for entry in candidates])
    arrays.attrs["data"] = plan.data
    return arrays
