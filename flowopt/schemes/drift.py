"""What schemes ask of flows."""

from flowopt.core.interfaces import FlowLike, Scheme
from flowopt.errors import CompatibilityError


def check_noise(scheme: Scheme, flow: FlowLike) -> None:
    """Raises `CompatibilityError` for noise whose two readings differ."""
    if flow.noise_kind == "driven":
        raise CompatibilityError(
            f"the noise of flow {flow.name!r} depends on what it drives, so that Itô's and "
            f"Stratonovich's readings differ and {scheme!r} would follow neither well: change to "
            "variables in which the noise is additive"
        )


def check_summed_scheme(scheme: Scheme, flow: FlowLike) -> None:
    """Raises `CompatibilityError` if the sums of drifts and noise do not say how the flow moves."""
    check_noise(scheme, flow)
    if flow.per_step:
        raise CompatibilityError(
            f"flow {flow.name!r} has {sorted(flow.per_step)} as rate × step size, and {scheme!r} "
            "needs rates in time: use flow.at_step_size(h)"
        )


def check_drift_scheme(scheme: Scheme, flow: FlowLike) -> None:
    """Raises `CompatibilityError` if the summed drift alone does not say how the flow moves."""
    if flow.noisy:
        raise CompatibilityError(
            f"{scheme!r} steps drifts only and flow {flow.name!r} has noise: use EulerMaruyama() "
            f"or a splitting word over its letters {list(flow.letters)}"
        )
    check_summed_scheme(scheme, flow)
