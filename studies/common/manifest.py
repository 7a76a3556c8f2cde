"""The record of how a result was made."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr

from studies.common.results import ResultFolder, digest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_REPOSITORY = Path(__file__).parents[2]


def manifest(
    config: DataclassInstance,
    *,
    seconds: float,
    counts: Mapping[str, int | float],
    device: torch.device | str,
) -> dict[str, Any]:
    """What must be known to make a result again.

    Args:
        config: The configuration of the study, its seed included.
        seconds: Wall time of the run.
        counts: What the run cost, such as evaluations of losses and gradients.
        device: Where it ran.

    Returns:
        Content for `ResultFolder.write_json`: config and its digest, versions of Python,
        flowopt and its dependencies, the commit (None outside a checkout, "-dirty" after it if
        files differ from it), device and its name, threads, seconds, counts, and the time in UTC.
    """
    return {
        "config": dataclasses.asdict(config),
        "digest": digest(config),
        "versions": _versions(),
        "commit": _commit(_REPOSITORY),
        "device": str(device),
        "device_name": _device_name(torch.device(device)),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "counts": dict(counts),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_results(
    folder: ResultFolder,
    arrays: xr.Dataset,
    report: str,
    config: DataclassInstance,
    *,
    seconds: float,
    counts: Mapping[str, int | float],
    device: torch.device | str,
) -> None:
    """Writes what every study leaves: `arrays.nc`, `report.md` and, last, `manifest.json`.

    Args:
        folder: Where.
        arrays: All numbers that the figures and the report are made of.
        report: In Markdown.
        config: As for `manifest`, like all that follows.
        seconds: Wall time of the run.
        counts: What the run cost.
        device: Where it ran.
    """
    folder.write_dataset("arrays.nc", arrays)
    folder.write_text("report.md", report)
    found = manifest(config, seconds=seconds, counts=counts, device=device)
    folder.write_json("manifest.json", found)


def _versions() -> dict[str, str]:
    names = ["flowopt", "torch", "numpy"]
    # Run from a checkout that is not installed, flowopt has no list of requirements.
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("flowopt") or ():
            extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
            if extra is None or extra[1] == "studies":
                names.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(folder: Path) -> str | None:
    # Without this, a package installed inside another project's checkout would report that one.
    if not (folder / ".git").exists():
        return None
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            [*describe, "--exclude=*"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpu = ""
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, flags=re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()
