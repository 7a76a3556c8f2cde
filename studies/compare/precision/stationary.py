"""How far the stationary distribution of a scheme is from that of its flow."""

from __future__ import annotations

import time

import torch
import xarray as xr
from torch import Tensor

import flowopt as fo
from studies.common.candidates import Scheme
from studies.compare.precision.config import Config
from studies.compare.precision.entrants import Setting

# The density of one dimension is below 1e-300 beyond, for every landscape here.
REACH, POINTS = 20.0, 400_001


def samples_of(setting: Setting, scheme: Scheme, step_size: float, config: Config) -> Tensor:
    """|θ|² along chains, (sample, chain)."""
    found = fo.sample(
        setting.flow,
        scheme,
        setting.problem,
        setting.start[:1].expand(config.chains, -1).contiguous(),
        step_size=step_size,
        samples=round(config.duration / step_size),
        burn_in=round(config.duration / 4 / step_size),
        seed=config.seed,
    )
    return found.position.square().sum(-1)


def mean_and_error(draws: Tensor) -> tuple[float, float]:
    """Mean of (sample, chain) and its standard error, by the effective sample size."""
    size = fo.diagnostics.effective_sample_size(draws)
    return draws.mean().item(), (draws.std() / size.sqrt()).item()


def true_moment(setting: Setting, finest: Scheme, step_size: float, config: Config):
    """⟨|θ|²⟩ under exp(−L/T) and its standard error, 0 where it is known.

    Exact for quadratics, by quadrature in one dimension; else estimated with the smallest step.
    """
    problem, temperature = setting.problem, config.temperature
    if problem.name == "quadratic":
        curvatures = problem.critical_points[0].eigenvalues
        return temperature * sum(1 / curvature for curvature in curvatures), 0.0
    if problem.dim == 1:
        line = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
        weight = torch.softmax(-problem.loss(line[:, None]) / temperature, 0)
        return (weight * line**2).sum().item(), 0.0
    return mean_and_error(samples_of(setting, finest, step_size, config))


def stationary_error(
    setting: Setting, scheme: Scheme, step_size: float, truth: tuple[float, float], config: Config
) -> xr.Dataset:
    """Relative error of ⟨|θ|²⟩ and its standard error."""
    begin = time.perf_counter()
    mean, error = mean_and_error(samples_of(setting, scheme, step_size, config))
    exact, doubt = truth
    gradients = scheme.gradient_evaluations(setting.flow)
    return xr.Dataset(
        {
            "moment_error": abs(mean - exact) / exact,
            "moment_standard_error": (error**2 + doubt**2) ** 0.5 / exact,
            "moment_cost": fo.forward_passes({"gradients": gradients}) / step_size,
            "moment_seconds": time.perf_counter() - begin,
        }
    )
