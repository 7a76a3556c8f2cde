"""Euler–Richardson: an Euler step, corrected by the drift at a probe."""

from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Noise, Point, Proposal
from flowopt.core.state import State
from flowopt.errors import CompatibilityError
from flowopt.schemes.drift import DriftScheme

# How far along the step the probe is, and the order that follows.
VARIANTS = {"textbook": (0.5, 2.0), "author": (1.0, 1.0)}


class EulerRichardson(DriftScheme):
    """Euler–Richardson: the drift d₁ at a probe takes the whole step, z + h·d₁.

    The probe z + s·h·d₀ is half an Euler step away (s = ½), and the step that of the midpoint rule,
    order 2: two half Euler steps doubled, less a full one. In the author's form it is a whole Euler
    step away (s = 1): the extragradient step, order 1. The estimate of the error, (h/2)·(d₁ − d₀),
    is that of `flowopt.ElementaryControl`.

    A stop condition is tried at the probe too, and a trajectory that meets it ends there. That is
    needed: as the gradient vanishes, the control lengthens h until Euler's step is too long by as
    much as the tolerance, where the probe comes to lie at the minimum while z stays at a distance.

    Args:
        variant: "textbook", or "author" for the form in which Bensaid's results were made.

    Raises:
        CompatibilityError: There is no such variant.

    Reference:
        Gould, Tobochnik & Christian 2007, An Introduction to Computer Simulation Methods, appendix
        3A; Korpelevich 1976, Ekonomika i Matematicheskie Metody 12, 747 (extragradient); Bensaid,
        Poëtte & Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4.
    """

    error_order = 1

    def __init__(self, variant: str = "textbook"):
        """See the class."""
        if variant not in VARIANTS:
            raise CompatibilityError(
                f"no variant {variant!r} of Euler-Richardson: known are {list(VARIANTS)}"
            )
        self.variant = variant

    def __repr__(self) -> str:
        """As it is written."""
        return f"EulerRichardson({self.variant!r})"

    def order(self, flow: FlowLike) -> float:
        """2, or 1 in the author's form."""
        return VARIANTS[self.variant][1]

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """2, whatever the flow."""
        return 2

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """The probe, and a step along the drift there."""
        share, _ = VARIANTS[self.variant]
        slope = flow.drift(state, evaluate(state))
        probe = state.plus([(share * step_size, slope)])
        probe = replace(probe, time=state.time + share * step_size)
        evaluation = evaluate(probe)
        probe_slope = flow.drift(probe, evaluation)
        difference = probe_slope.map(torch.sub, slope)
        error = state.map(torch.zeros_like).plus([(0.5 * step_size, difference)])
        end = state.plus([(step_size, probe_slope)])
        return Proposal(end, error, probe=Point(probe, evaluation))
