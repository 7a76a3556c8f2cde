"""Checks of what a user hands over: what came, what was expected, what to do."""

import torch
from torch import Tensor

from flowopt.core.interfaces import FlowLike, Oracle, StepControl
from flowopt.core.partition import places_of
from flowopt.core.state import State, per_trajectory
from flowopt.errors import CompatibilityError, ConfigurationError, FlowoptError

SEEDS = 2**63


def real_tensor(what: str, value: object, error: type[FlowoptError] = ConfigurationError) -> Tensor:
    """A real number, or a tensor of them, as float64; raises the error for anything else."""

    def misfit() -> FlowoptError:
        return error(f"{what} is a real number or a tensor of them, got {value!r}")

    tensor = isinstance(value, Tensor)
    if isinstance(value, bool) or (tensor and (value.is_complex() or value.dtype == torch.bool)):
        raise misfit()
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise misfit() from reason


def check_seed(seed: object) -> None:
    """Raises `ConfigurationError` for what is no whole number in [0, 2⁶³)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise ConfigurationError(f"a seed is a whole number from 0 to 2**63 - 1, got {seed!r}")


def check_flow_and_scheme(flow: object, scheme: object) -> None:
    """Raises `CompatibilityError` for what is no flow, or no scheme."""
    _check_kind("flow", flow, "initial_state", "flowopt.flows.langevin(...) or Flow.from_text(...)")
    _check_kind("scheme", scheme, "step", "Splitting('BAOAB'), RungeKutta('rk4') or Euler()")


def check_is_control(control: object, instead: str) -> None:
    """Raises `CompatibilityError` for what is no step control; an example says what to give."""
    _check_kind("control", control, "judge", f"Schedule(f), ErrorControl() or {instead}")


def check_noise(noise: object) -> None:
    """Raises `CompatibilityError` for what is no source of random numbers."""
    if noise is not None:
        _check_kind("noise", noise, "normal", "a seed, or system.noise(path) of flowopt.adapters")


def check_progress(progress: object) -> None:
    """Raises `ConfigurationError` for what is neither a choice nor a function."""
    if not isinstance(progress, bool) and not callable(progress):
        raise ConfigurationError(
            f"progress is True, False or a function of the number of new steps, got {progress!r}"
        )


def check_settings(
    step_size: object,
    steps: object,
    duration: object,
    control: StepControl | None,
    seed: object,
    compile: object,
) -> None:
    """Raises a `FlowoptError` where a setting of `integrate` is missing or is of no use."""
    if control is not None:
        check_is_control(control, "step_size=0.1")
    if (step_size is None) == (control is None):
        raise ConfigurationError(
            "give either step_size or control, as in step_size=0.1 or control=Schedule(f)"
        )
    if steps is None and duration is None:
        raise ConfigurationError("give steps (most accepted steps), duration (a time span) or both")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
        raise ConfigurationError(f"steps is a whole number that is not negative, got {steps!r}")
    if steps is None:
        _check_moves_on(step_size, control)
    if duration is not None and not _all_positive("duration", duration):
        raise ConfigurationError(f"a duration is positive and finite, got {duration!r}")
    check_seed(seed)
    if compile != "auto" and not isinstance(compile, bool):
        raise ConfigurationError(f"compile is 'auto', True or False, got {compile!r}")


def _check_moves_on(step_size: object, control: StepControl | None) -> None:
    moves_on = control.advances if control is not None else _all_positive("step_size", step_size)
    if not moves_on:
        raise ConfigurationError(
            f"a duration alone ends only where every step moves on in time, got {step_size!r}: "
            "give a positive step_size, or steps too"
        )


def check_duration(duration: object, flow: FlowLike) -> None:
    """Raises `CompatibilityError` for a time span of a flow whose rates are per step."""
    if duration is not None and flow.per_step:
        raise CompatibilityError(
            f"flow {flow.name!r} has {sorted(flow.per_step)} as rate × step size, which a "
            "shortened last step would not scale: give steps, or flow.at_step_size(h)"
        )


def span(duration: float | Tensor, batch: tuple[int, ...], device: torch.device) -> Tensor:
    """A duration for every trajectory, (*batch,), float64."""
    tensor = torch.as_tensor(duration, dtype=torch.float64, device=device)
    return per_trajectory("duration", tensor, batch)


def check_state(state: State, flow: FlowLike, oracle: Oracle) -> None:
    """Raises `CompatibilityError` for a state that another flow or another problem left."""
    came = sorted(state.variables), sorted(state.scalars)
    expected = sorted(flow.variables), sorted(flow.scalars)
    if came != expected:
        raise CompatibilityError(
            f"the state has variables {came[0]} and scalars {came[1]}, flow {flow.name!r} has "
            f"{expected[0]} and {expected[1]}: continue with the flow that the state comes from, "
            "or start anew from solution.position"
        )
    shapes = [(*state.batch, *shape) for shape in oracle.shapes]
    for name, leaves in state.variables.items():
        found = [tuple(leaf.shape) for leaf in leaves]
        due = [shapes[place] for place in places_of(flow.partition, name, len(shapes))]
        if found != due:
            raise CompatibilityError(
                f"{name!r} of the state has leaves of shapes {found}, the problem expects "
                f"{due}: continue with the problem that the state comes from"
            )


def _check_kind(what: str, value: object, method: str, example: str) -> None:
    if isinstance(value, type):
        raise CompatibilityError(
            f"{what} is the class {value.__name__}, expected an object: write {value.__name__}(...)"
        )
    if hasattr(value, method):
        return
    if hasattr(value, "flow") and hasattr(value, "scheme"):
        raise CompatibilityError(
            f"{what} is the method {getattr(value, 'name', value)!r}, which has a flow, a scheme "
            "and a step size: give method.flow, method.scheme and step_size=method.step_size"
        )
    raise CompatibilityError(f"{what}={value!r} is no {what}: give {example}")


def _all_positive(what: str, value: object) -> bool:
    tensor = real_tensor(what, value)
    return bool((torch.isfinite(tensor) & (tensor > 0)).all())
