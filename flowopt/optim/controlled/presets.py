"""Optimizers whose own energy falls at every step, on the sample of that step."""

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from flowopt import flows
from flowopt.classic.checks import check_betas
from flowopt.controls import LyapunovControl
from flowopt.errors import ConfigurationError
from flowopt.optim.checks import check_numbers
from flowopt.optim.flow_optimizer import FlowOptimizer
from flowopt.schemes import Splitting


class EnergyGD(FlowOptimizer):
    """Gradient descent along which the loss falls: L(θ − hg) − L(θ) ≤ −λh|g|².

    `step(closure)` or `step(loss=...)`; a step shrinks to half until it is accepted.

    Args:
        params: As for torch.optim, in one group.
        lr: h of the first trial; `group["lr"]` is that of the next.
        dissipation: λ; from ½ on a step never goes beyond the minimum of its line, on a quadratic.
        growth: Factor of h after a step. With minibatches little more than 1: a sample has little
            to say about the step that suits the next one.
        maximize: Whether to climb.

    Reference:
        Bensaid, arXiv 2407.01019; Armijo 1966, Pacific J. Math. 16(1), 1.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.1,
        *,
        dissipation: float = 0.5,
        growth: float = 1.1,
        maximize: bool = False,
    ):
        """See the class."""
        super().__init__(
            params,
            flows.gradient_flow(),
            Splitting("A"),
            control=_control(dissipation, growth, lr),
            maximize=maximize,
        )


class EnergyMomentum(FlowOptimizer):
    """Momentum along which rate·L + |m|²/2 falls, of θ' = −m, m' = rate·(g − m).

    The rate is −ln(momentum)/lr and stays, so that longer steps forget more of the average.
    `step(closure)` or `step(loss=...)`; a step shrinks to half until it is accepted.

    Args:
        params: As for torch.optim, in one group.
        lr: h of the first trial, θ ← θ − hm; `group["lr"]` is that of the next.
        momentum: In (0, 1); what is left of the average after a step of lr.
        dissipation: Share of the energy's rate that a step must reach.
        growth: Factor of h after a step; little more than 1 with minibatches.
        maximize: Whether to climb.

    Reference:
        Bensaid, arXiv 2407.15471, with the exact average.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,
        dissipation: float = 0.1,
        growth: float = 1.1,
        maximize: bool = False,
    ):
        """See the class."""
        super().__init__(
            params,
            flows.momentum_ema(rate=_rate("momentum", momentum, lr)),
            Splitting("MA"),
            control=_control(dissipation, growth, lr),
            maximize=maximize,
        )


class EnergyAdam(FlowOptimizer):
    """Adam along which its Lyapunov function falls; Adam itself where every step is accepted.

    The rates −ln(β)/lr stay, so that longer steps forget more, and the averages are exact.
    `step(closure)` or `step(loss=...)`; a step shrinks to half until it is accepted.

    Args:
        params: As for torch.optim, in one group.
        lr: Of Adam; `group["lr"]` is h of the next trial.
        betas: In (0, 1); what is left of the averages of g and g² after a step of lr.
        eps: Added to the root.
        dissipation: Share of the energy's dissipation that a step must reach.
        growth: Factor of h after a step; little more than 1 with minibatches, 2 with all rows.
        start: Share of lr with which the first trial is made, from where h grows. The energy bounds
            the level, not the path: a first step of a large lr may leap into another valley.
        maximize: Whether to climb.

    Reference:
        Barakat & Bianchi 2021, SIAM J. Optim. 31(1), 244, for the energy.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        dissipation: float = 0.1,
        growth: float = 1.1,
        start: float = 0.1,
        maximize: bool = False,
    ):
        """See the class."""
        check_betas(betas)
        if not 0 < start <= 1:
            raise ConfigurationError(f"start lies in (0, 1], got {start!r}")
        flow = flows.adam(
            momentum_rate=_rate("betas[0]", betas[0], lr),
            square_rate=_rate("betas[1]", betas[1], lr),
            eps=eps,
        )
        super().__init__(
            params,
            flow,
            Splitting("TMVA"),
            control=_control(dissipation, growth, start * lr),
            maximize=maximize,
        )


def _control(dissipation: float, growth: float, lr: float) -> LyapunovControl:
    """The control of a preset, whose first trial is lr long."""
    check_numbers({"lr": lr})
    first = lr.reshape(()) if isinstance(lr, Tensor) else lr
    return LyapunovControl(dissipation=dissipation, growth=growth, first_step=first)


def _rate(name: str, share: float, lr: float) -> float:
    """Rate at which a share is left after a step."""
    check_numbers({"lr": lr})
    if not 0 < share < 1:
        raise ConfigurationError(f"{name} lies between 0 and 1, got {share!r}")
    if not 0 < lr < math.inf:
        raise ConfigurationError(f"Invalid learning rate: {lr}; expected a positive number")
    return -math.log(share) / lr
