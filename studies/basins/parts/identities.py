"""What must hold to rounding: published rules as steps of flows, and the catalogue of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from studies.basins.config import Config
from studies.basins.maps import problem, uniform
from studies.common.tables import markdown_table

STEPS, STARTS = 300, 100
# Rates at which no rule gets to where it jumps about a minimum and rounding grows.
RULES: Mapping[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "gradient descent": lambda theta: torch.optim.SGD(theta, lr=0.01),
    "momentum": lambda theta: torch.optim.SGD(theta, lr=0.01, momentum=0.9),
    "Nesterov": lambda theta: torch.optim.SGD(theta, lr=0.01, momentum=0.9, nesterov=True),
    "RMSProp": lambda theta: torch.optim.RMSprop(theta, lr=1e-4),
    "AdaGrad": lambda theta: torch.optim.Adagrad(theta, lr=0.01),
    "Adam": lambda theta: torch.optim.Adam(theta, lr=1e-3),
}
WHERE = "poly_two"


def units(config: Config) -> Mapping[str, Callable[[], xr.Dataset]]:
    """One for all rules and one for all problems."""
    return {"rules": lambda: _rules(config), "catalogue": _catalogue}


def _rules(config: Config) -> xr.Dataset:
    return xr.Dataset(
        {"rule_difference": ("rule", [_difference(rule, config) for rule in RULES])},
        {"rule": list(RULES)},
    )


def _difference(rule: str, config: Config) -> float:
    """Largest distance, in any parameter after any step, from torch's own optimizer."""
    landscape = problem(WHERE)
    start = uniform(-1.5, 1.5, STARTS, config.seed)
    theta = start.clone().requires_grad_()
    optimizer = RULES[rule]([theta])
    path = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        landscape.loss(theta).sum().backward()
        optimizer.step()
        path.append(theta.detach().clone())
    method = fo.classic.from_torch(optimizer)
    solution = fo.integrate(
        method.flow,
        method.scheme,
        landscape,
        start,
        step_size=method.step_size,
        steps=STEPS,
        record={"position": 1},
    )
    return float((solution.records["position"][1:] - torch.stack(path)).abs().max())


def _catalogue() -> xr.Dataset:
    """How far gradients at the listed points are from 0, and Hessians from their eigenvalues."""
    rows = [_errors(fo.problems.analytic(name)) for name in fo.problems.ANALYTIC]
    points, gradients, eigenvalues = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "point_count": ("family", list(points)),
            "point_gradient": ("family", list(gradients)),
            "point_eigenvalue": ("family", list(eigenvalues)),
        },
        {"family": list(fo.problems.ANALYTIC)},
    )


def _errors(landscape: fo.problems.Landscape) -> tuple[int, float, float]:
    """Points and curves, largest gradient there, and largest relative error of an eigenvalue."""
    known = landscape.critical_points
    where = torch.tensor([p.position for p in known], dtype=torch.float64)
    along = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    curves = [curve.position(along) for curve in landscape.critical_curves]
    places = torch.cat([where.reshape(-1, landscape.dim), *curves])
    listed = torch.tensor([p.eigenvalues for p in known], dtype=torch.float64)
    listed = torch.cat(
        [
            listed.reshape(-1, landscape.dim),
            *(curve.eigenvalues(along) for curve in landscape.critical_curves),
        ]
    )
    found = torch.linalg.eigvalsh(torch.func.vmap(torch.func.hessian(landscape.loss))(places))
    scale = listed.abs().amax(-1, keepdim=True).clamp(min=1.0)
    return (
        len(known) + len(curves),
        float(landscape.gradient(places).abs().max()),
        float(((found - listed) / scale).abs().max()),
    )


def joined(found: Mapping[str, xr.Dataset], config: Config) -> xr.Dataset:
    """Along "rule" and "family"."""
    return xr.merge([found["rules"], found["catalogue"]])


def section(arrays: xr.Dataset, config: Config) -> str:
    """Two tables."""
    rules = [
        (str(n), f"{float(d):.1e}") for n, d in zip(RULES, arrays.rule_difference, strict=True)
    ]
    columns = (arrays.point_count, arrays.point_gradient, arrays.point_eigenvalue)
    families = [
        (str(name), str(int(count)), f"{float(gradient):.1e}", f"{float(eigenvalue):.1e}")
        for name, count, gradient, eigenvalue in zip(arrays.family.values, *columns, strict=True)
    ]
    header = ("problem", "points and curves", "gradient", "eigenvalues")
    return (
        "## What holds to rounding\n\nRules as steps of flows beside torch's own optimizers, "
        f"{STARTS} starts on {WHERE}, the largest distance in {STEPS} steps; and the listed "
        "critical points: the largest gradient there, and the largest error of an eigenvalue "
        "against the Hessian by autograd, relative to the larger one.\n\n"
        + markdown_table(("rule", "difference"), rules, right={"difference"})
        + "\n\n"
        + markdown_table(header, families, right=header[1:])
    )


def worst(numbers: xr.DataArray) -> tuple[str, float]:
    """Label and value of the largest number, NaN counted as larger than any."""
    values = np.nan_to_num(numbers.values, nan=np.inf)
    place = int(values.argmax())
    return str(numbers[numbers.dims[0]].values[place]), float(values[place])
