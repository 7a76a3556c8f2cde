"""Ensembles of small networks on data, each from weights of its own: who converges, who diverges.

The author's data and widths of initial weights are not all known; what is assumed stands in
`TASKS`, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor, nn

import flowopt as fo
from studies.basins.config import Config
from studies.basins.maps import moved
from studies.basins.methods import method
from studies.common.tables import markdown_table

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A network, its data and where it begins.

    Attributes:
        layers: Widths, inputs first.
        activation: Between the layers.
        last: After the last one, if anything.
        data: Inputs and targets.
        half_width: Weights and biases are uniform up to it; None for Xavier's, biases zero.
        tolerance: Norm of the gradient that counts as converged.
        records: Method → the author's percentages, (converged, diverged), NaN where not known.
        assumed: What is not known of the author's runs.
    """

    layers: tuple[int, ...]
    activation: Callable[[], nn.Module]
    last: Callable[[], nn.Module] | None
    data: Callable[[], Data]
    half_width: float | None
    tolerance: float
    records: Mapping[str, tuple[float, float]]
    assumed: str


def _spirals() -> Data:
    """100 points on two arms of one and a half turns."""
    along = torch.linspace(0.1, 1.0, 50, dtype=torch.float64)
    angle = 3.0 * math.pi * along
    arm = torch.stack([along * torch.cos(angle), along * torch.sin(angle)], -1)
    arms = torch.arange(2, dtype=torch.float64).repeat_interleave(50)
    return torch.cat([arm, -arm]), arms[:, None]


def _squares() -> Data:
    """(x₁², x₂²) on a grid of 10 × 10 points of [−1, 1]²."""
    line = torch.linspace(-1.0, 1.0, 10, dtype=torch.float64)
    inputs = torch.cartesian_prod(line, line)
    return inputs, inputs**2


def _wave() -> Data:
    """A square wave of two periods at 100 points of [0, 1]."""
    inputs = torch.linspace(0.0, 1.0, 100, dtype=torch.float64)[:, None]
    return inputs, torch.sign(torch.sin(4.0 * math.pi * inputs))


NAN = math.nan
TASKS: Mapping[str, Task] = {
    "squares": Task(
        (2, 15, 2),
        nn.ReLU,
        None,
        _squares,
        100.0,
        1e-7,
        {
            "gd@0.1": (NAN, 59.9),
            "momentum@0.1": (NAN, 93.9),
            "momentum@0.01": (NAN, 74.2),
            "momentum_em@0.1": (99.64, 0.14),
        },
        "the points (a grid of 10 × 10 on [−1, 1]²), and that weights, not data, are uniform on "
        "[−100, 100]",
    ),
    "square_wave": Task(
        (1, 15, 1),
        nn.Sigmoid,
        None,
        _wave,
        None,
        1e-3,
        {
            "gd@0.1": (76.1, NAN),
            "momentum@0.01": (16.4, NAN),
            "gd_em@0.1": (77.7, NAN),
            "er@0.1": (79.7, NAN),
            "momentum_em@0.1": (98.4, NAN),
            "lc_gd@0.1": (99.85, NAN),
        },
        "the points (100 on [0, 1], two periods between −1 and 1) and Xavier's weights",
    ),
    "two_spirals": Task(
        (2, 12, 12, 12, 1),
        nn.Tanh,
        nn.Sigmoid,
        _spirals,
        None,
        1e-2,
        {"gd@0.1": (26.0, NAN), "er@0.1": (62.0, NAN), "lc_gd@0.1": (100.0, NAN)},
        "the spirals' turns (one and a half)",
    ),
}


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for each task and method."""
    return {
        _unit(name, entrant): lambda name=name, entrant=entrant: _trained(name, entrant, config)
        for name in config.networks
        for entrant in TASKS[name].records
    }


def _unit(name: str, entrant: str) -> str:
    return f"network {name} {entrant}"


def _problem(task: Task) -> fo.problems.Network:
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(zip(task.layers, task.layers[1:], strict=False)):
        layers += [task.activation()] if i else []
        layers.append(nn.Linear(inside, outside))
    module = nn.Sequential(*layers, *([task.last()] if task.last else [])).double()
    return fo.problems.network(module, nn.functional.mse_loss, task.data())


def _start(task: Task, problem: fo.problems.Network, replicas: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = {}
    for name, value in problem.start(replicas).items():
        numbers = 2.0 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1.0
        if task.half_width is not None:
            start[name] = task.half_width * numbers
        elif value.ndim == 2:
            start[name] = torch.zeros_like(value)
        else:
            start[name] = math.sqrt(6.0 / sum(value.shape[1:])) * numbers
    return start


def _trained(name: str, entrant: str, config: Config) -> xr.Dataset:
    """Shares of the networks that converged and diverged, in percent."""
    task = TASKS[name]
    problem = _problem(task)
    chosen = replace(method(entrant), tolerance=task.tolerance)
    start = _start(task, problem, config.replicas, config.seed)
    solution = moved(chosen, problem, start, most_steps=config.network_steps, compile=True)
    losses = problem.loss(solution.position)
    converged = solution.status == fo.Status.GRADIENT_SMALL
    diverged = (solution.status == fo.Status.DIVERGED) | ~losses.isfinite()
    return xr.Dataset(
        {
            "network_converged": 100.0 * float(converged.double().mean()),
            "network_diverged": 100.0 * float(diverged.double().mean()),
            "network_loss": float(losses[~diverged].median()) if bool((~diverged).any()) else NAN,
            "network_steps": float(solution.steps.double().mean()),
        }
    )


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """All ensembles along "network_run"."""
    pairs = [(name, entrant) for name in config.networks for entrant in TASKS[name].records]
    runs = xr.concat([found[_unit(*pair)] for pair in pairs], "network_run")
    return runs.assign(
        network_task=("network_run", [name for name, _ in pairs]),
        network_method=("network_run", [entrant for _, entrant in pairs]),
    )


def section(arrays: xr.Dataset, config: Config) -> str:
    """One row per ensemble, and what is assumed."""
    rows = []
    for number in range(arrays.sizes["network_run"]):
        one = arrays.isel(network_run=number)
        name, entrant = str(one.network_task.item()), str(one.network_method.item())
        theirs = TASKS[name].records[entrant]
        ours = (float(one.network_converged), float(one.network_diverged))
        pairs = [f"{_percent(a)} / {_percent(b)}" for a, b in zip(ours, theirs, strict=True)]
        loss, steps = float(one.network_loss), float(one.network_steps)
        rows.append((name, entrant, *pairs, f"{loss:.2g}", f"{steps:.0f}"))
    header = ("data", "method", "converged, ours / author", "diverged", "median loss", "steps")
    assumed = "\n".join(f"- {name}: {TASKS[name].assumed}." for name in config.networks)
    return (
        f"## Small networks on data\n\n{config.replicas} networks each, at most "
        f"{config.network_steps} steps, in percent, where the author's runs had 20000 steps and "
        f"1000 to 10000 networks. Not known of these, and assumed:\n\n{assumed}\n\n"
        + markdown_table(header, rows, right=header[2:])
    )


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
