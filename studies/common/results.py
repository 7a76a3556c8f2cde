"""Result folders `results/<study>/<digest>/`: atomic files, and units that a killed run resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import flowopt
from flowopt.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from matplotlib.figure import Figure

_LOGGER = logging.getLogger(__name__)
_FILE_NAME = re.compile(r"\w[\w.+-]*")


def digest(config: DataclassInstance) -> str:
    """Name of the result folder of a configuration.

    Equal configurations have equal digests: keys are sorted, and 1 and 1.0 are one number.

    Args:
        config: Instance of a frozen dataclass of numbers, texts, booleans, None and tuples.

    Returns:
        The first 12 hexadecimal digits of the sha256 of the configuration as JSON.

    Raises:
        ConfigurationError: A field holds something that JSON can not say.
    """
    fields = _canonical(dataclasses.asdict(config))
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise ConfigurationError(
            f"{config!r} has no digest ({error}), expected numbers, texts, booleans, None and "
            "tuples of them: name such an object by a text"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class ResultFolder:
    """The files of one configuration of a study.

    Every file is written under a temporary name beside its place and then moved there, so a
    reader, and a run after an interruption, sees it whole or not at all.

    *Units* are the parts of a run that are worth keeping when it is killed (one method, one
    seed). A unit counts as finished only while its file is the one that was written, and
    while the code of flowopt and of the studies, figures apart, is what it was then.

    Args:
        study: Name of the study.
        config: Its configuration, as `digest` takes it.
        out: The folder of all results.

    Attributes:
        path: The folder, which exists from then on.

    Raises:
        ConfigurationError: The name of the study is no plain name, or the folder can not be made.
    """

    def __init__(self, study: str, config: DataclassInstance, *, out: Path = Path("results")):
        self.path = out / _plain(study) / digest(config)
        self._units = self.path / "units"
        # Once, for code that is edited during a long run is not the code that runs.
        self._code = _code_digest()
        try:
            self._units.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"results can not be written to {self.path} ({error}), expected a folder that "
                "may be written: choose another one"
            ) from error

    def write_text(self, name: str, text: str) -> Path:
        """Write a text in UTF-8; returns its path."""
        return self._write(name, lambda path: _write_text(path, text))

    def write_json(self, name: str, content: Any) -> Path:
        """Write content as JSON, with "NaN", "Infinity" and "-Infinity" as texts.

        Strict readers refuse these numbers, and a study that diverged still has a report.

        Args:
            name: Name of the file.
            content: Dicts, lists, tuples, numbers (numpy's too), texts, booleans and None.

        Returns:
            The path of the file.
        """
        text = json.dumps(_strict(content), indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_text(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """Read what `write_json` wrote.

        Args:
            name: Name of the file.

        Returns:
            The content, tuples as lists.

        Raises:
            DataError: There is no such file, or it is not JSON.
        """
        path = self._existing(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON ({error}): delete it and run again") from error

    def write_dataset(self, name: str, dataset: xr.Dataset) -> Path:
        """Write labelled arrays as netCDF; returns the path."""
        return self._write(name, lambda path: dataset.to_netcdf(path, engine="h5netcdf"))

    def read_dataset(self, name: str) -> xr.Dataset:
        """Read what `write_dataset` wrote, into memory.

        Args:
            name: Name of the file.

        Returns:
            The labelled arrays.

        Raises:
            DataError: There is no such file, or it is not netCDF.
        """
        path = self._existing(name)
        try:
            return xr.load_dataset(path, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not netCDF ({error}): delete it and run again") from error

    def save_figure(self, figure: Figure, name: str) -> tuple[Path, Path]:
        """Save a matplotlib figure as PNG and PDF.

        Args:
            figure: The figure.
            name: Name of both files, without an ending.

        Returns:
            The paths of the PNG and of the PDF.
        """

        def save(kind: str) -> Path:
            return self._write(
                f"{name}.{kind}",
                lambda path: figure.savefig(path, format=kind, dpi=150, bbox_inches="tight"),
            )

        return save("png"), save("pdf")

    def unit(self, name: str) -> xr.Dataset | None:
        """What an earlier run finished under a name.

        Args:
            name: Any text, such as "adam, seed 3".

        Returns:
            The labelled arrays, or None if the unit is not finished or can not be trusted.
        """
        stem = _unit_stem(name)
        try:
            seal = (self._units / f"{stem}.seal").read_text(encoding="ascii")
            content = (self._units / f"{stem}.nc").read_bytes()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            seal, content = "", b""
        if seal != self._seal(content):
            if seal.startswith(hashlib.sha256(content).hexdigest()):
                _LOGGER.info("unit %r is of other code, computed anew", name)
            else:
                _LOGGER.warning("unit %r is damaged, computed anew", name)
            return None
        return self.read_dataset(f"units/{stem}.nc")

    def finished(self, name: str) -> xr.Dataset:
        """A unit that is known to be finished.

        Raises:
            DataError: It can not be trusted any more.
        """
        unit = self.unit(name)
        if unit is None:
            raise DataError(f"{name} in {self.path} was damaged meanwhile: run again")
        return unit

    def finish_unit(self, name: str, dataset: xr.Dataset) -> None:
        """Keep what a unit computed.

        Args:
            name: The name under which `unit` finds it.
            dataset: Its labelled arrays.
        """
        stem = _unit_stem(name)
        path = self.write_dataset(f"units/{stem}.nc", dataset)
        self.write_text(f"units/{stem}.seal", self._seal(path.read_bytes()))

    def _seal(self, content: bytes) -> str:
        return f"{hashlib.sha256(content).hexdigest()} {self._code}\n"

    def _existing(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise DataError(f"{path} does not exist: run the study first")
        return path

    def _write(self, name: str, write: Callable[[Path], Any]) -> Path:
        path = self.path.joinpath(*(_plain(part) for part in name.split("/")))
        with _replacing(path) as temporary:
            write(temporary)
        return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    # In the same folder: a move between file systems is not atomic. A name of its own: two
    # runs of one configuration may write at once.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _plain(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} can not name a file, expected letters, digits, '_', '-', '+' and '.'"
        )
    return name


def _unit_stem(name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60] or "unit"
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _code_digest() -> str:
    code = hashlib.sha256()
    studies = Path(__file__).parents[1]
    for package in (Path(flowopt.__file__).parent, studies):
        for path in sorted(package.rglob("*.py")):
            if path.name != "figures.py":
                code.update(path.read_bytes())
    return code.hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _strict(value: Any) -> Any:
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
