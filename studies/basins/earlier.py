"""Numbers that other code had measured before this study was written, beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import NamedTuple

import xarray as xr

from studies.basins.config import Config
from studies.basins.maps import domain, grid, landmarks, problem
from studies.basins.parts.table import MOST_ERRORS, standard_errors
from studies.basins.statistics import statistics
from studies.common.tables import markdown_table

# Pixels along the maps from which the earlier numbers are, and starts near all minima.
MAPPED, NEAR = 160, 800
# Percent of the labels that change where the steps of a true flow are halved.
STATED_NOISE = 0.4
TITLES = {
    "unlike_flow": "≠ flow / %",
    "unlike_ode": "≠ own ODE / %",
    "trap": "trap / %",
    "leave": "L(0.1) / %",
    "leave_far": "L(0.3) / %",
    "parts": "parts",
    "dimension": "D",
    "boundary_entropy": "Sbb",
}
SHARES = ("unlike_flow", "unlike_ode", "trap", "leave", "leave_far")
# Of numbers that hang on the pixels the order is compared, where they differ by more.
APART = {"dimension": 0.05, "parts": 20.0, "boundary_entropy": 0.05}

INTRODUCTION = f"""\
Beside those of a prototype on grids of 160 × 160 (true flows by steps of 0.004 to time 60). Shares
differ by more than chance (marked *) beyond {MOST_ERRORS:g} standard errors of as many random
starts and beyond the {STATED_NOISE} points that its shorter steps changed. Parts, dimension D and
entropy hang on the pixels, so that their order is compared, and that of all shares."""

Numbers = Mapping[str, float]


def _numbers(*values: float | None) -> Numbers:
    """≠ flow, trap, L(0.1), parts, D and Sbb, as far as they are known."""
    names = ("unlike_flow", "trap", "leave", "parts", "dimension", "boundary_entropy")
    pairs = zip(names, values, strict=False)
    return {name: value for name, value in pairs if value is not None}


MAPS: Mapping[str, Mapping[str, Numbers]] = {
    "poly_two": {
        "gradient_flow": _numbers(0.0, 0.0, 0.0, 6, 0.97, 0.450),
        "gd@0.1": _numbers(37.4, 0.0, 0.0, None, 1.17, 0.565),
        "momentum_ode": _numbers(44.7, 0.0, 0.0, 154, 1.195, 0.531),
        "momentum@0.1": _numbers(44.6, 0.0, 0.0, 133, 1.198, 0.529),
        "awb_ode": _numbers(41.2, 0.0, 0.0, 70, 1.22, 0.524),
        "awb@0.1": _numbers(45.7, 5.29, 34.8, 171, 1.36, 0.540),
        "adam_ode": _numbers(30.7, 0.0, 0.0, 25, 1.10, 0.554),
        "adam@0.1": _numbers(21.4, 0.0, 0.0, 10, 1.06, 0.528),
        "er@0.1": _numbers(0.19, 0.0, 0.0, 6, 0.97, 0.458),
        "gd_em@0.1": _numbers(29.8, 0.0, 0.0, 575, 1.51, 0.540),
    },
    "poly_three": {
        "gradient_flow": _numbers(0.0, 0.0, 0.0, None, 0.97),
        "momentum@0.1": _numbers(None, None, None, None, 1.53, 0.794),
        "awb@0.1": _numbers(None, 32.5, 37.0, 361, 1.44),
        "adam@0.1": _numbers(None, 0.0, 0.0, None, 1.04),
        "er@0.1": _numbers(0.07),
        "gd_em@0.1": _numbers(None, None, None, None, 1.85),
        "momentum_em@0.1": _numbers(None, None, None, None, 1.80, 0.82),
        "lc_gd@0.1": {"unlike_flow": 37.0, "trap": 8.8, "leave_far": 32.7},
        "lc_gd_moderate@0.1": _numbers(0.86),
    },
    "cloche": {"awb@0.1": _numbers(8.84), "adam@0.1": _numbers(0.0)},
}
SWEEPS: Mapping[str, Mapping[str, Mapping[float, Numbers]]] = {
    "poly_two": {
        "dissipation": {
            0.9: _numbers(0.09, 0.0, 0.0, 6, 0.965),
            0.5: _numbers(0.74, 0.0, 0.0, 6, 0.965),
            0.1: _numbers(31.2, 0.0, 0.0, 129, 1.30),
            1e-4: _numbers(32.6, 0.0, 0.0, 331, 1.37),
        },
        "growth": {
            2.0: _numbers(0.85, 0.0, 0.0, 8, 0.97),
            10.0: _numbers(1.1, 0.0, 0.0, 20, 0.98),
            1e4: _numbers(3.0, 0.10, 0.0, 175, 1.18),
        },
        "awb": {0.06: {"leave": 0.0}, 0.1: {"leave": 34.5}, 0.3: {"leave": 91.0}},
        "adam": {0.3: {"leave": 0.0}, 0.5: {"leave": 54.0}, 1.0: {"leave": 73.0}},
        "awb_slower": {h: {"unlike_ode": x} for h, x in ((0.1, 15.2), (0.05, 3.8), (0.02, 1.2))},
        "momentum_slower": {
            h: {"unlike_ode": x} for h, x in ((0.1, 4.8), (0.05, 1.1), (0.02, 0.6))
        },
    },
    "poly_three": {
        "dissipation": {0.5: _numbers(0.82)},
        "awb": {0.06: {"leave": 0.0}, 0.1: {"leave": 36.0}},
        "adam": {0.2: {"leave": 0.0}, 0.3: {"leave": 15.0}, 0.5: {"leave": 59.0}},
    },
}

# Problem, method and quantity → why the earlier number is another.
EXPLAINED = {
    ("poly_two", "adam_ode", "unlike_flow"): "8 % of the prototype's had not come to rest at "
    "time 60, and counted as ending elsewhere",
}


class Pair(NamedTuple):
    """An earlier number and ours.

    Attributes:
        problem: Of the registry.
        method: As it is written, with its number in a sweep.
        family: What it is ordered among.
        quantity: In `TITLES`.
        earlier: The number.
        ours: The number here.
        count: Of the starts behind ours.
        earlier_count: Of those behind the other.
    """

    problem: str
    method: str
    family: str
    quantity: str
    earlier: float
    ours: float
    count: int
    earlier_count: int

    @property
    def explanation(self) -> str:
        """Why the earlier number is another; empty where nothing is known to be."""
        return EXPLAINED.get((self.problem, self.method, self.quantity), "")

    @property
    def within(self) -> bool | None:
        """Whether shares differ by no more than chance and the stated noise; None for others."""
        if self.quantity not in SHARES:
            return None
        errors = standard_errors(self.ours, self.count, self.earlier, self.earlier_count)
        return abs(self.ours - self.earlier) <= STATED_NOISE or abs(errors) <= MOST_ERRORS


def pairs(arrays: xr.Dataset, config: Config) -> list[Pair]:
    """All that this run has an earlier number of."""
    return [*_mapped(arrays, config), *_swept(arrays, config)]


def _mapped(arrays: xr.Dataset, config: Config) -> Iterator[Pair]:
    if "map_label" not in arrays or config.sampling != "grid":
        return
    made = set(arrays.map_method.values)
    for where in (name for name in MAPS if name in config.problems):
        for name, numbers in MAPS[where].items():
            if name in made:
                found = statistics(arrays, where, name, config)
                for quantity, earlier in numbers.items():
                    counts = _starts(where, quantity, config.pixels, config)
                    ours = getattr(found, quantity)
                    yield Pair(where, name, "maps", quantity, earlier, ours, *counts)


def _swept(arrays: xr.Dataset, config: Config) -> Iterator[Pair]:
    if "sweep_problem" not in arrays:
        return
    for where in (name for name in SWEEPS if name in config.swept):
        for sweep, values in SWEEPS[where].items():
            for value, numbers in values.items():
                one = arrays.sel({"sweep_problem": where, f"sweep_{sweep}": value})
                for quantity, earlier in numbers.items():
                    counts = _starts(where, quantity, config.swept_pixels, config)
                    ours = float(one[f"sweep_{sweep}_{quantity}"])
                    name = f"{sweep} {value:g}"
                    yield Pair(where, name, sweep, quantity, earlier, ours, *counts)


def _starts(where: str, quantity: str, pixels: int, config: Config) -> tuple[int, int]:
    """Of ours and of the earlier number: all, those near minima, or those in traps."""
    if quantity.startswith("leave"):
        # The problems have four minima.
        return 4 * config.near, NEAR
    if quantity != "trap":
        return pixels**2, MAPPED**2
    return _trapped(where, pixels), _trapped(where, MAPPED)


@cache
def _trapped(where: str, pixels: int) -> int:
    landscape = problem(where)
    loss = landscape.loss(grid(*domain(landscape), pixels))
    return max(1, int((loss < landmarks(landscape).lowest_saddle).sum()))


def ordered(found: list[Pair]) -> tuple[int, int]:
    """How many pairs of methods stand in the earlier order, and how many there are.

    Two are compared where the earlier numbers differ by more than they may change with pixels.
    """
    right = total = 0
    for first, second in combinations(found, 2):
        same = (first.problem, first.family, first.quantity)
        if same != (second.problem, second.family, second.quantity):
            continue
        if first.explanation or second.explanation:
            continue
        gap = first.earlier - second.earlier
        if abs(gap) > APART.get(first.quantity, 2 * STATED_NOISE):
            total += 1
            right += gap * (first.ours - second.ours) > 0
    return right, total


def section(found: list[Pair]) -> str:
    """Every earlier number beside ours, those beyond chance marked."""
    header = ("problem", "method", "quantity", "earlier", "ours")
    rows = []
    for pair in found:
        mark = " *" if pair.within is False else ""
        form = ".3f" if pair.quantity in ("dimension", "boundary_entropy") else ".2f"
        rows.append(
            (
                pair.problem,
                pair.method,
                TITLES[pair.quantity],
                f"{pair.earlier:{form}}",
                f"{pair.ours:{form}}{mark}",
            )
        )
    return f"## Numbers measured before\n\n{INTRODUCTION}\n\n" + markdown_table(
        header, rows, right=header[3:]
    )
