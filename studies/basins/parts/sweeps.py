"""How maps change with one number: λ, growth, learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from studies.basins.config import Config
from studies.basins.maps import domain, ends, grid, landmarks, problem
from studies.basins.methods import Method, method, slower
from studies.basins.statistics import RADII, TRUE_FLOW, leave_rates, trap_violations
from studies.common.tables import markdown_table


class Values(NamedTuple):
    """What a map says at one value of a sweep; shares in percent."""

    unlike_flow: float
    unlike_ode: float
    trap: float
    leave: float
    parts: float
    dimension: float


# Field of `Values` → how it is called, in their order.
TITLES = {
    "unlike_flow": "≠ flow / %",
    "unlike_ode": "≠ own ODE / %",
    "trap": "trap / %",
    "leave": "L(0.1) / %",
    "parts": "parts",
    "dimension": "boundary dimension",
}


@dataclass(frozen=True)
class Sweep:
    """A family of methods by one number.

    Attributes:
        symbol: Of the number.
        meaning: Of the sweep, in a line.
        values: Of the number.
        method: Number → method.
    """

    symbol: str
    meaning: str
    values: tuple[float, ...]
    method: Callable[[float], Method]


def _controlled(**settings: Any) -> Method:
    return replace(method("gd@0.1"), control=fo.LyapunovControl(first_step=0.1, **settings))


RATES = (0.02, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0)
SWEEPS: Mapping[str, Sweep] = {
    "dissipation": Sweep(
        "λ",
        "gradient descent, each step begun with 0.1 and halved until the loss falls at λ of its "
        "rate",
        (1e-4, 0.1, 0.3, 0.4, 0.45, 0.5, 0.6, 0.9),
        lambda value: _controlled(dissipation=value, restart=True),
    ),
    "growth": Sweep(
        "growth",
        "the same with λ = ½, each step begun with the last one times the growth",
        (2.0, 4.0, 10.0, 100.0, 1e4),
        lambda value: _controlled(growth=value),
    ),
    "awb": Sweep("lr", "Adam without bias correction", RATES, lambda value: method(f"awb@{value}")),
    "adam": Sweep("lr", "Adam", RATES, lambda value: method(f"adam@{value}")),
    "awb_slower": Sweep(
        "lr",
        "Adam without bias correction, 1 − β in proportion to lr: steps of one ODE",
        (0.1, 0.05, 0.02),
        lambda value: slower("awb", value),
    ),
    "momentum_slower": Sweep(
        "lr",
        "momentum, 1 − β in proportion to lr: steps of one ODE",
        (0.1, 0.05, 0.02),
        lambda value: slower("momentum", value),
    ),
}


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each problem and sweep."""
    return {
        _unit(where, name): lambda where=where, name=name: _swept(where, name, config)
        for where in config.swept
        for name in SWEEPS
    }


def _unit(where: str, name: str) -> str:
    return f"sweep {where} {name}"


def _swept(where: str, name: str, config: Config) -> xr.Dataset:
    sweep = SWEEPS[name]
    rows = [_values(where, sweep.method(value), config) for value in sweep.values]
    columns = zip(*rows, strict=True)
    return xr.Dataset(
        {
            f"sweep_{name}_{field}": (f"sweep_{name}", list(column))
            for field, column in zip(Values._fields, columns, strict=True)
        },
        {f"sweep_{name}": list(sweep.values)},
    )


def _values(where: str, chosen: Method, config: Config) -> Values:
    landscape, known = problem(where), landmarks(problem(where))
    start = grid(*domain(landscape), config.swept_pixels)
    labels = _mapped(chosen, where, config.swept_pixels)
    flow = _true(TRUE_FLOW, where, config.swept_pixels)
    own = _true(chosen.ode, where, config.swept_pixels)
    loss = landscape.loss(start).reshape(labels.shape)
    wells = [n for n, kind in enumerate(known.kinds) if kind == "minimum"]
    return Values(
        unlike_flow=100.0 * float((labels != flow).double().mean()),
        unlike_ode=100.0 * float((labels != own).double().mean()),
        trap=trap_violations(labels, flow, loss, known),
        leave=leave_rates(chosen, landscape, config, RADII[:1])[0],
        parts=sum(fo.diagnostics.components(labels, n) for n in wells),
        dimension=fo.diagnostics.boundary(labels).dimension,
    )


def _mapped(chosen: Method, where: str, pixels: int) -> Tensor:
    start = grid(*domain(problem(where)), pixels)
    labels = ends(chosen, problem(where), start).label.values
    return torch.from_numpy(labels).reshape(pixels, pixels)


@cache
def _true(name: str, where: str, pixels: int) -> Tensor:
    """Of a true flow, which several sweeps are compared with."""
    return _mapped(method(name), where, pixels)


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All sweeps along "sweep_problem"."""
    rows = [xr.merge([found[_unit(where, name)] for name in SWEEPS]) for where in config.swept]
    return xr.concat(rows, "sweep_problem").assign_coords(sweep_problem=list(config.swept))


def section(arrays: xr.Dataset, config: Config) -> str:
    """One table per sweep."""
    tables = []
    for name, sweep in SWEEPS.items():
        header = ("problem", sweep.symbol, *TITLES.values())
        rows = [
            (where, f"{value:g}", *_cells(arrays, where, name, value))
            for where in config.swept
            for value in sweep.values
        ]
        table = markdown_table(header, rows, right=header[1:])
        tables.append(f"### {name}\n\n{sweep.meaning[0].upper()}{sweep.meaning[1:]}.\n\n{table}")
    pixels = config.swept_pixels
    title = f"## What one number does\n\nMaps of {pixels} × {pixels} starts.\n\n"
    return title + "\n\n".join(tables)


def _cells(arrays: xr.Dataset, where: str, name: str, value: float) -> list[str]:
    cells = []
    for field in Values._fields:
        number = float(
            arrays[f"sweep_{name}_{field}"].sel({"sweep_problem": where, f"sweep_{name}": value})
        )
        form = {"parts": ".0f", "dimension": ".3f"}.get(field, ".2f")
        cells.append("–" if math.isnan(number) else f"{number:{form}}")
    return cells
