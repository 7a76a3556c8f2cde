"""What controls that reject share: their settings, and what they ask of flow and scheme."""

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.core.interfaces import FlowLike, Point, Scheme, StepControl
from flowopt.core.state import per_trajectory
from flowopt.errors import CompatibilityError, ConfigurationError


def check_positive(**values: float | Tensor | None) -> None:
    """Raises `ConfigurationError` unless all that is given is positive."""
    for name, value in values.items():
        if value is not None and not bool((real_tensor(name, value) > 0).all()):
            raise ConfigurationError(f"{name} is positive, got {value!r}")


def first_steps(first_step: float | Tensor, point: Point) -> Tensor:
    """The first step size of every trajectory, (*batch,) float64."""
    time = point.state.time
    first = torch.as_tensor(first_step, dtype=torch.float64, device=time.device)
    return per_trajectory("first_step", first, point.state.batch).clone()


def check_estimate(control: StepControl, flow: FlowLike, scheme: Scheme) -> None:
    """Raises `CompatibilityError` without an error estimate, or for noisy flows."""
    if flow.noisy:
        raise CompatibilityError(
            f"flow {flow.name!r} has noise, and {control!r} rejects steps: a rejected step would "
            "need its Brownian path refined; use Constant or Schedule"
        )
    if not scheme.error_order:
        raise CompatibilityError(
            f"{scheme!r} estimates no error: use RungeKutta('dopri5') or RungeKutta('heun')"
        )
