"""Computes the study of controls: arrays, manifest and report, in a result folder."""

from __future__ import annotations

import time
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from studies.common import data
from studies.common.devices import checked_device, in_processes, one_thread
from studies.common.manifest import write_results
from studies.common.results import ResultFolder
from studies.controls.config import Config
from studies.controls.report import report
from studies.controls.training import train

Run = tuple[str, float, int]


def run(config: Config, *, out: Path, jobs: int = 1) -> ResultFolder:
    """Train every method at every rate with every seed.

    Args:
        config: What to train.
        out: The folder of all results.
        jobs: How many runs at a time, each in a process of its own.

    Returns:
        The folder, with `arrays.nc`, `manifest.json` and `report.md`.

    Raises:
        FlowoptError: The configuration can not be run.
        KeyboardInterrupt: From the keyboard; finished runs are kept.
    """
    begin = time.perf_counter()
    device = checked_device(config.device)
    folder = ResultFolder("controls", config, out=out)
    runs = [
        (method, rate, seed)
        for seed in range(config.seeds)
        for method in config.methods
        for rate in config.rates
    ]
    missing = [run for run in runs if folder.unit(_unit(run)) is None]
    with one_thread(), tqdm(total=len(missing), unit="run", disable=None) as bar:
        for name, unit in in_processes(_trained, ((run, config) for run in missing), jobs):
            folder.finish_unit(name, unit)
            bar.update()
    arrays = joined(folder, config)
    counts = {name: int(arrays[name].sum()) for name in ("cost", "steps", "rejected")}
    seconds = time.perf_counter() - begin
    text = report(arrays, config)
    write_results(folder, arrays, text, config, seconds=seconds, counts=counts, device=device)
    return folder


def joined(folder: ResultFolder, config: Config) -> xr.Dataset:
    """All units along "optimizer", "rate" and "seed"."""
    methods = [
        xr.concat(
            [
                xr.concat(
                    [folder.finished(_unit((method, rate, seed))) for seed in range(config.seeds)],
                    "seed",
                )
                for rate in config.rates
            ],
            "rate",
        )
        for method in config.methods
    ]
    return xr.concat(methods, "optimizer").assign_coords(
        optimizer=list(config.methods), rate=list(config.rates), seed=list(range(config.seeds))
    )


def _unit(run: Run) -> str:
    method, rate, seed = run
    return f"{method}, rate {rate!r}, seed {seed}"


def _trained(run: Run, config: Config) -> tuple[str, xr.Dataset]:
    with one_thread():
        return _unit(run), train(config, data.load_once(config.data, config.device), *run)
