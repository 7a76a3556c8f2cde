"""What the schemes that use the summed drift have in common."""

from flowopt.core.interfaces import FlowLike, Scheme
from flowopt.errors import CompatibilityError


def check_drift_scheme(scheme: Scheme, flow: FlowLike) -> None:
    """Raises `CompatibilityError` if the summed drift alone does not say how the flow moves."""
    if flow.noisy:
        raise CompatibilityError(
            f"{scheme!r} steps drifts only and flow {flow.name!r} has noise: use a splitting word "
            f"over its letters {list(flow.letters)}"
        )
    if flow.singular_at_start:
        raise CompatibilityError(
            f"the drift of flow {flow.name!r} is 0/0 at the start, where {scheme!r} evaluates it: "
            f"use a splitting word over its letters {list(flow.letters)}"
        )
    if flow.per_step:
        raise CompatibilityError(
            f"flow {flow.name!r} has {sorted(flow.per_step)} as rate × step size, and {scheme!r} "
            "needs rates in time: use flow.at_step_size(h)"
        )
