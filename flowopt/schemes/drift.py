"""Schemes on the summed drift: what they have in common, and what they ask of flows."""

from abc import ABC, abstractmethod

from torch import Tensor

from flowopt.core.evaluation import Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal, Scheme
from flowopt.core.state import State
from flowopt.errors import CompatibilityError


class DriftScheme(ABC):
    """What schemes on the summed drift have in common: each has a `step` and says where it differs.

    This one has order 1 and takes one gradient, that at the start of a step. What its attributes
    and methods mean is written in `flowopt.core.interfaces.Scheme`.

    Attributes:
        solves: Whether a step looks for what it may not find, as `Proposal.solved` tells.
        linearly_implicit: Whether a step solves a system with the derivative of the drift.
    """

    error_order: int = 0
    interpolant_order: int = 0
    regular_start: bool = True
    solves: bool = False
    linearly_implicit: bool = False

    def __repr__(self) -> str:
        """As it is written."""
        return f"{type(self).__name__}()"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noisy flows, and for rates that are not in time."""
        check_drift_scheme(self, flow)

    def order(self, flow: FlowLike) -> float:
        """1, whatever the flow."""
        return 1.0

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """1, whatever the flow."""
        return 1

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """No: the only gradient is the one at the start."""
        return False

    def closure_free(self, flow: FlowLike) -> bool:
        """Where the gradient at the start is the only one, and the equations hold no system."""
        alone = self.gradient_evaluations(flow) == 1 and not self.ends_with_gradient(flow)
        return alone and flow.damping is None

    @abstractmethod
    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """A step, of which each scheme has its own."""


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
