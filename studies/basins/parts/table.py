"""Class probabilities of random starts beside the author's records, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

import flowopt as fo
from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from studies.basins.author import CHANGES, RECORDS, Change, Record
from studies.basins.config import Config
from studies.basins.maps import ends, landmarks, problem, uniform
from studies.basins.methods import method
from studies.common.tables import markdown_table

# Standard errors of a difference of two shares beyond which it is flagged.
MOST_ERRORS = 4.0
HEADER = ("problem", "method", "end", "author / %", "ours / %", "errors", "steps", "cost")
CLASSES = ("diverged", "not converged", "elsewhere")
SHARES = ("reached", "unfinished", "lost")
CHANGE_HEADER = ("problem", "method", "runs", "reached / %", "not converged / %", "diverged / %")


def records(config: Config) -> list[Record]:
    """Those of the problems that the configuration asks for."""
    return [record for record in RECORDS if record.problem in config.records]


def changes(config: Config) -> list[Change]:
    """Those of these records."""
    return [change for change in CHANGES if change.record.problem in config.records]


def unit_name(record: Record, words: str = "") -> str:
    """Of the unit in which a record is computed anew, or otherwise."""
    return f"table {record.problem} {record.method} {words}".rstrip()


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each record, and one for each change of one."""
    every = [(record, "") for record in records(config)]
    every += [(change.record, change.words) for change in changes(config)]
    return {
        unit_name(record, words): lambda record=record: _counted(record, config)
        for record, words in every
    }


def _counted(record: Record, config: Config) -> xr.Dataset:
    landscape, chosen = problem(record.problem), method(record.method)
    if record.tolerance is not None:
        chosen = replace(chosen, tolerance=record.tolerance)
    if record.loss is not None:
        landscape = replace(landscape, function=record.loss)
    start = uniform(-record.half_width, record.half_width, config.starts, config.seed)
    found = ends(chosen, landscape, start, most_steps=record.most_steps)
    labels = found.label.values
    known = landmarks(landscape).points.tolist()
    numbers = [known.index([float(x) for x in point]) for point in record.points]
    codes = [*numbers, LOST, UNFINISHED, ELSEWHERE]
    count = [int((labels == code).sum()) for code in codes]
    if record.together:
        position = len(numbers)
        count[position] += count[position + 1]
        count[position + 1] = 0
    steps = [found.steps.values[labels == code] for code in codes]
    cost = [found.cost.values[labels == code] for code in codes]
    return xr.Dataset(
        {
            "count": ("end", count),
            "steps": ("end", [_mean(values) for values in steps]),
            "cost": ("end", [_mean(values) for values in cost]),
        },
        {"end": [*(_text(point) for point in record.points), *CLASSES]},
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _text(point: tuple[float, float]) -> str:
    return f"({point[0]:.3g}, {point[1]:.3g})"


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """Shares in percent: one row per cell, and one per change.

    "table_author" and "table_ours", "table_errors" between them; "change_reached" (a listed point),
    "change_unfinished" and "change_lost".
    """
    return xr.merge([_cells(found, config), _changes(found, config)])


def _cells(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    rows = []
    for record in records(config):
        unit = found[unit_name(record)]
        theirs = [*record.shares, record.lost, record.unfinished, record.elsewhere]
        for percent, cell in zip(theirs, unit.end.values, strict=True):
            one = unit.sel(end=cell)
            if math.isnan(percent):
                continue
            ours = 100.0 * int(one["count"]) / config.starts
            errors = standard_errors(ours, config.starts, percent, record.starts)
            numbers = (percent, ours, errors, float(one.steps), float(one.cost))
            rows.append((record.problem, record.method, str(cell), *numbers))
    columns = list(zip(*rows, strict=True))
    names = ("problem", "method", "end", "author", "ours", "errors", "steps", "cost")
    return xr.Dataset(
        {
            f"table_{name}": ("table_cell", list(column))
            for name, column in zip(names, columns, strict=True)
        }
    )


def _changes(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """Of each record that is computed otherwise: the author's shares, ours, and those."""
    rows: list[tuple[str, str, str, float, float, float]] = []
    for change in changes(config):
        record = change.record
        named = (record.problem, record.method)
        if named not in {row[:2] for row in rows}:
            theirs = (sum(record.shares), record.unfinished, record.lost)
            rows.append((*named, "the author's", *theirs))
            rows.append((*named, "ours", *_shares(found[unit_name(record)], config)))
        unit = found[unit_name(record, change.words)]
        rows.append((*named, change.words, *_shares(unit, config)))
    names = ("problem", "method", "words", *SHARES)
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return xr.Dataset(
        {
            f"change_{name}": ("change", list(column))
            for name, column in zip(names, columns, strict=True)
        }
    )


def _shares(unit: xr.Dataset, config: Config) -> tuple[float, float, float]:
    """Percent that reached a listed point, did not converge, diverged."""
    percent = 100.0 * unit["count"] / config.starts
    lost, unfinished = (float(percent.sel(end=name)) for name in CLASSES[:2])
    return float(percent[: -len(CLASSES)].sum()), unfinished, lost


def standard_errors(first: float, first_count: int, second: float, second_count: int) -> float:
    """Difference of two shares, in percent, in units of its standard error if both are one."""
    pooled = (first * first_count + second * second_count) / (first_count + second_count) / 100
    variance = pooled * (1 - pooled) * (1 / first_count + 1 / second_count)
    return (first - second) / 100 / math.sqrt(variance) if variance > 0 else 0.0


def exceptions(arrays: xr.Dataset) -> xr.Dataset:
    """The cells that differ by more than chance allows."""
    return arrays.isel(table_cell=np.flatnonzero(np.abs(arrays.table_errors) > MOST_ERRORS))


def explained(cells: xr.Dataset) -> bool:
    """Whether it is known of all records of some cells why they differ."""
    known = {(record.problem, record.method) for record in RECORDS if record.differs}
    return _named(cells) <= known


def _named(cells: xr.Dataset) -> set[tuple[str, str]]:
    """Problem and method of the records of some cells."""
    pairs = zip(cells.table_problem.values, cells.table_method.values, strict=True)
    return {(str(problem), str(method)) for problem, method in pairs}


def section(arrays: xr.Dataset, config: Config) -> str:
    """The table, how many cells are beyond the bar, and why."""
    cells = arrays.sizes["table_cell"]
    wrong = exceptions(arrays)
    rows = [_row(arrays.isel(table_cell=i)) for i in range(cells)]
    notes = [text for record in records(config) if (text := note(record, wrong))]
    one = fo.diagnostics.binomial_interval(config.starts // 4, config.starts)
    return (
        f"## Class probabilities beside the author's records\n\n"
        f"{config.starts} random starts (95 % interval of a quarter: {100 * one.low:.1f} to "
        f"{100 * one.high:.1f} %) against the author's 10000 (4445 on cloche and rat_two, 28000 of "
        f"er on poly_five). {wrong.sizes['table_cell']} of {cells} cells differ by more than "
        f"{MOST_ERRORS:g} standard errors, marked *. Steps and "
        "cost (forward passes) are means of ours.\n\n"
        + markdown_table(HEADER, rows, right=set(HEADER) - {"problem", "method", "end"})
        + ("\n\n" + "\n".join(notes) if notes else "")
        + _change_table(arrays)
    )


def note(record: Record, wrong: xr.Dataset) -> str:
    """What is to say of a record, and why cells of it are among those beyond the bar."""
    differs = record.differs
    if (record.problem, record.method) in _named(wrong):
        differs = differs or "Why a cell differs is not known."
    words = " ".join(filter(None, (record.note, differs)))
    return f"- {record.problem}, {record.method}: {words}" if words else ""


def _change_table(arrays: xr.Dataset) -> str:
    if not arrays.sizes["change"]:
        return ""
    names = [arrays[f"change_{name}"].values for name in ("problem", "method", "words")]
    numbers = [arrays[f"change_{name}"].values for name in SHARES]
    rows = [
        (*map(str, words), *("–" if math.isnan(x) else f"{x:.2f}" for x in shares))
        for words, shares in zip(zip(*names, strict=True), zip(*numbers, strict=True), strict=True)
    ]
    return (
        "\n\n### What shares hang on\n\nRuns of the records made otherwise: to another |g|, with "
        "more steps, or with the problem's own loss instead of that of the author's code. Reached: "
        "those that end at a point of the table above.\n\n"
        + markdown_table(CHANGE_HEADER, rows, right=CHANGE_HEADER[3:])
    )


def _row(cell: xr.Dataset) -> tuple[str, ...]:
    errors = float(cell.table_errors)
    mark = " *" if abs(errors) > MOST_ERRORS else ""
    return (
        str(cell.table_problem.item()),
        str(cell.table_method.item()),
        str(cell.table_end.item()),
        f"{float(cell.table_author):.2f}",
        f"{float(cell.table_ours):.2f}",
        f"{errors:+.1f}{mark}",
        _whole(float(cell.table_steps)),
        _whole(float(cell.table_cost)),
    )


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"
