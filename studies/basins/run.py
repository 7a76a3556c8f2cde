"""Computes the study, unit by unit: arrays, manifest and report, in a result folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import xarray as xr
from tqdm.auto import tqdm

from studies.basins.config import Config
from studies.basins.parts import identities, networks, portraits, rates, sweeps, table, true_flows
from studies.basins.report import report
from studies.common.devices import checked_device
from studies.common.manifest import write_results
from studies.common.results import ResultFolder

PARTS: Mapping[str, ModuleType] = {
    "identities": identities,
    "table": table,
    "maps": portraits,
    "sweeps": sweeps,
    "rates": rates,
    "flows": true_flows,
    "networks": networks,
}


def run(config: Config, *, out: Path, jobs: int = 1) -> ResultFolder:
    """Compute what is missing, and write what it says.

    Args:
        config: What to compute.
        out: The folder of all results.
        jobs: Taken for the command line's sake: kernels use torch's threads.

    Returns:
        The folder, with `arrays.nc`, `manifest.json` and `report.md`.

    Raises:
        FlowoptError: The configuration can not be run.
        KeyboardInterrupt: From the keyboard; finished units are kept.
    """
    folder = ResultFolder("basins", config, out=out)
    seconds = _compute(folder, config)
    parts: list[xr.Dataset] = []
    sections: dict[str, str] = {}
    for name in config.parts:
        found = {unit: folder.finished(unit) for unit in PARTS[name].units(config)}
        arrays = PARTS[name].joined(found, config)
        parts.append(arrays)
        sections[name] = PARTS[name].section(arrays, config)
    arrays = xr.merge(parts)
    arrays.attrs["sampling"] = config.sampling
    counts = {"units": sum(len(PARTS[name].units(config)) for name in config.parts)}
    device = checked_device(config.device)
    text = report(sections, arrays, config)
    write_results(folder, arrays, text, config, seconds=seconds, counts=counts, device=device)
    return folder


def _compute(folder: ResultFolder, config: Config) -> float:
    """Finish every unit that is not finished yet; the seconds that this took."""
    every = {k: v for name in config.parts for k, v in PARTS[name].units(config).items()}
    missing = {name: compute for name, compute in every.items() if folder.unit(name) is None}
    begin = time.perf_counter()
    with tqdm(total=len(missing), unit="map", disable=None) as bar:
        for name, compute in missing.items():
            bar.set_description(name)
            folder.finish_unit(name, compute())
            bar.update()
    return time.perf_counter() - begin
