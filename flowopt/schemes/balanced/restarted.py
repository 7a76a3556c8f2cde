"""Momentum that begins anew where it climbs."""

from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal, Scheme
from flowopt.core.state import State, select
from flowopt.errors import CompatibilityError
from flowopt.schemes.balanced.changing import ChangingScheme


class Restarted(ChangingScheme):
    """A step of another scheme, from rest where the loss would rise along the motion.

    Where ⟨∇L, θ'⟩ > 0 at the start of a step, the momenta, which are all that an energy of the flow
    is quadratic in, are first set to zero, if the energy then is lower. So restarts only ever take
    from the energy, and what holds of its decrease holds with them. They take what an oscillation
    about a minimum has too much: momentum that friction alone would need many turns for, as that
    of Adam from a start where gradients, and with them √v, are small.

    It costs no evaluation. Between restarts the step is that of the scheme, with its estimate of
    the error; the equation's own solution is left at the first.

    Args:
        scheme: What steps.
        energy: Name of an energy of the flow; its first by default.

    Raises:
        ConfigurationError: The scheme is none.

    Reference:
        O'Donoghue & Candès 2015, Found. Comput. Math. 15, 715, the gradient scheme.
    """

    def __init__(self, scheme: Scheme, energy: str | None = None):
        """See the class."""
        super().__init__(scheme, energy)
        self.regular_start, self.error_order = scheme.regular_start, scheme.error_order
        self.interpolant_order = scheme.interpolant_order
        self.solves = getattr(scheme, "solves", False)

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noise, and for flows without an energy of momenta."""
        super().check(flow)
        if not flow.energy(self._name(flow)).momenta:
            raise CompatibilityError(
                f"{self!r} needs a flow with an energy that is quadratic in a momentum, as "
                f"heavy_ball(), unlike flow {flow.name!r}: use {self.scheme!r}"
            )

    def order(self, flow: FlowLike) -> float:
        """None, 0: a restart leaves the solution, however short the steps are."""
        return 0.0

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """Those of the scheme, and the one at the start."""
        begins = getattr(self.scheme, "begins_with_gradient", None)
        known = begins is None or begins(flow) or self.ends_with_gradient(flow)
        return self.scheme.gradient_evaluations(flow) + (not known)

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """As the scheme."""
        return self.scheme.ends_with_gradient(flow)

    def closure_free(self, flow: FlowLike) -> bool:
        """As the scheme."""
        return self.scheme.closure_free(flow)

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """A step of the scheme, with the momenta or from rest."""
        energy, evaluation = flow.energy(self._name(flow)), evaluate(state)
        names = energy.momenta
        velocity = flow.drift(state, evaluation).position
        pairs = zip(evaluation.gradient, velocity, strict=True)
        climbs = state.total(slope * speed for slope, speed in pairs) > 0.0
        still = {name: tuple(map(torch.zeros_like, state.variables[name])) for name in names}
        # Kinetic energies alone: beside the loss a slow momentum is lost in rounding, and an
        # optimizer that is handed its gradients knows no loss.
        alone = replace(evaluation, loss=torch.zeros_like(evaluation.loss))
        resting = state.updated(still)
        drops = climbs & (energy.value(resting, alone) < energy.value(state, alone))
        momenta = select(drops, resting, state).variables
        # θ as it was: the gradient there is known.
        begun = state.updated({name: momenta[name] for name in names})
        return self.scheme.step(flow, begun, step_size, evaluate, noise)
