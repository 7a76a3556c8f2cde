"""The report: what was asked for, what the parts say, and the names that stand in their tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

import flowopt as fo
from studies.basins import earlier
from studies.basins.config import Config
from studies.basins.methods import MEANINGS
from studies.basins.parts import identities, rates, table, true_flows
from studies.common.tables import markdown_table

INTRODUCTION = """\
# Basins of attraction

Where the trajectories of optimizers end, on problems whose critical points are all known and on
small networks, beside the records of B. Bensaid, "the author" (public result files, 2021 to 2022).
R is the loss, g its gradient; a name such as gd@0.1 is a method with its step size h, and the names
are explained at the end."""
EXACT = 1e-14
YES, NO, MISSING, EXPLAINED = "yes", "no", "–", "all but what is explained"


class Target(NamedTuple):
    """What was asked for.

    Attributes:
        number: As it is cited.
        asked: In words.
        part: Which has to be made for it.
        found: Arrays and configuration → what is found, and whether that is what was asked for:
            `YES`, `NO`, `MISSING` or `EXPLAINED`.
    """

    number: str
    asked: str
    part: str
    found: Callable[[xr.Dataset, Config], tuple[str, str]]


def _rules(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    name, difference = identities.worst(arrays.rule_difference)
    return f"at most {difference:.1e} ({name})", _verdict(difference <= EXACT)


def _catalogue(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    gradient, eigenvalue = (
        identities.worst(arrays[f"point_{name}"])[1] for name in ("gradient", "eigenvalue")
    )
    text = (
        f"{int(arrays.point_count.sum())} points and curves of {arrays.sizes['family']} problems: "
        f"gradients to {gradient:.1e}, eigenvalues to {eigenvalue:.1e}"
    )
    return text, _verdict(max(gradient, eigenvalue) <= EXACT)


def _records(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    cells, wrong = arrays.sizes["table_cell"], table.exceptions(arrays)
    far = wrong.sizes["table_cell"]
    near = int((np.abs(arrays.table_ours - arrays.table_author) <= 1.0).sum())
    text = f"{cells - far} of {cells} cells; {near} within 1 point"
    return text, _verdict(far == 0, table.explained(wrong))


def _traps(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    left = {
        str(name): int(arrays.trap_left.sel(trap_flow=name)) for name in arrays.trap_flow.values
    }
    beyond = [name for name in left if true_flows.ratio_of(name) > true_flows.SAFE_RATIO]
    held = sum(count for name, count in left.items() if name not in beyond)
    first = next((f"{name}: {left[name]}" for name in beyond if left[name]), "none")
    starts = int(arrays.trap_starts[0])
    return f"{held} of {starts} for each; first violation {first}", _verdict(
        held == 0 and first != "none"
    )


def _earlier(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    found = earlier.pairs(arrays, config)
    if not found:
        return "", MISSING
    shares = [pair for pair in found if pair.within is not None]
    far = [pair for pair in shares if not pair.within]
    right, total = earlier.ordered(found)
    text = (
        f"{len(shares) - len(far)} of {len(shares)} shares; {right} of {total} pairs of methods or "
        "values in the earlier order"
    )
    known = right == total and all(pair.explanation for pair in far)
    return text, _verdict(not far and right == total, known)


def _saddles(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    counts = arrays.saddle_count.sel(saddle_criterion="")
    share, strict, top = (
        100.0 * float(counts.sel(saddle_kind=kind)) / config.flowing
        for kind in ("non-strict saddle", "saddle", "maximum")
    )
    value, error = true_flows.PUBLISHED
    ours = (share * (100.0 - share) / config.flowing) ** 0.5
    apart = (share - value) / (error**2 + ours**2) ** 0.5
    text = f"{share:.1f} ± {ours:.1f} % ({apart:+.1f} standard errors), {strict:g} %, {top:g} %"
    return text, _verdict(abs(apart) <= 2.0 and strict == top == 0.0)


def _cost(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    where = config.problems[0]
    costs = arrays.map_cost.sel(map_problem=where)
    words = (f"{name} {float(costs.sel(map_method=name)):.0f}" for name in config.methods)
    return f"{where}: {', '.join(words)}", _verdict(bool(np.isfinite(costs).all()))


def _controlled_adam(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    ours, adam = (arrays.sel(rate_method=name) for name in ("lc_adam_restarted", "torchs_adam"))
    shares, costs = (ours[f"rate_{name}"].values for name in ("converged", "cost"))
    usual = arrays["rate"].values <= rates.RATES[3]
    half = (costs[usual] <= adam.rate_cost.values[usual] / 2).all()
    text = (
        f"with restarts {', '.join(f'{x:.4g}' for x in shares)} % converge, cost "
        f"{', '.join(f'{x:.0f}' for x in costs)}, {float(ours.rate_left.max()):g} % leave"
    )
    met = half and (shares == 100.0).all() and (ours.rate_left == 0).all()
    return text, _verdict(bool(met))


def _growth(arrays: xr.Dataset, config: Config) -> tuple[str, str]:
    where, names = "poly_three", ("lc_gd_moderate@0.1", "lc_gd@0.1")
    if where not in config.problems or not set(names) <= set(config.methods):
        return "", MISSING
    words, numbers = [], []
    for name in names:
        one = arrays.sel(map_problem=where, map_method=name)
        # A rejected trial costs a forward pass, a step a gradient besides that at the start.
        gradient = fo.forward_passes({"gradients": 1})
        trials = float(one.map_cost) - gradient * (float(one.map_steps) + 1) + float(one.map_steps)
        apart = earlier.statistics(arrays, where, name, config).unlike_flow
        numbers.append((trials, apart))
        words.append(f"{trials:.0f} trials, {apart:.2f} % for {name}")
    (few, near), (many, far) = numbers
    return "; ".join(words), _verdict(few < many / 4 and near < 1.0 < 30.0 < far)


def _verdict(met: bool, explained: bool = False) -> str:
    if met:
        return YES
    return EXPLAINED if explained else NO


TARGETS = (
    Target(
        "T1",
        f"classic rules are steps of flows: distance to torch.optim in 300 steps, at most {EXACT}",
        "identities",
        _rules,
    ),
    Target(
        "T2",
        "listed critical points: gradient 0, eigenvalues those of the Hessian",
        "identities",
        _catalogue,
    ),
    Target("T3", "class probabilities of the records within 4 standard errors", "table", _records),
    Target(
        "T4",
        "gradient flow, momentum, Adam for b ≤ 4a stay in their traps; Adam beyond does not",
        "flows",
        _traps,
    ),
    Target(
        "T5",
        "leave rates, disagreement with the flow, and their thresholds in learning "
        "rate, λ and growth; shapes in the same order",
        "maps",
        _earlier,
    ),
    Target(
        "T6",
        "poly_five: the gradient flow ends at non-strict saddles in 26.8 ± 2.2 %, at strict ones "
        "and maxima in 0",
        "flows",
        _saddles,
    ),
    Target("T7", "cost in forward passes, not steps", "maps", _cost),
    Target(
        "T8",
        "controlled Adam, lr 0.001 to 1: 100 % converge within 2000 passes (cost 137, 120, 163, "
        "261, 483), at half of Adam's cost up to 0.3, none leaves",
        "rates",
        _controlled_adam,
    ),
    Target(
        "T8",
        "poly_three, growth 2 against 10⁴: 98 trials and 0.86 % unlike the flow against 589 and "
        "37 %",
        "maps",
        _growth,
    ),
)


def report(sections: Mapping[str, str], arrays: xr.Dataset, config: Config) -> str:
    """What was asked for and all sections under an introduction, and what their methods are.

    Args:
        sections: Part → Markdown.
        arrays: Of all parts.
        config: What was computed.
    """
    found = earlier.pairs(arrays, config)
    parts = [_targets(arrays, config), *sections.values()]
    parts += [earlier.section(found)] if found else []
    text = "\n\n".join(parts)
    lines = [f"- {name}: {meaning}." for name, meaning in MEANINGS.items() if _stands(name, text)]
    methods = "\n\n## Methods\n\n" + "\n".join(lines) if lines else ""
    return f"{INTRODUCTION}\n\n{text}{methods}\n"


def _targets(arrays: xr.Dataset, config: Config) -> str:
    made = [target for target in TARGETS if target.part in config.parts]
    found = [(target, *target.found(arrays, config)) for target in made]
    rows = [
        (target.number, target.asked, text, met) for target, text, met in found if met != MISSING
    ]
    header = ("", "asked for", "found", "met")
    missing = [target.number for target in TARGETS if target.number not in {row[0] for row in rows}]
    table = markdown_table(header, rows) if rows else ""
    note = f"Not in this run: {', '.join(dict.fromkeys(missing))}." if missing else ""
    return "\n\n".join(filter(None, ("## What was asked for", table, note)))


def _stands(name: str, text: str) -> bool:
    """Whether a cell of a table has this method."""
    return re.search(rf"\| {re.escape(name)}(@\S+)? +\|", text) is not None
