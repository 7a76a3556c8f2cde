"""Langevin dynamics: flows with noise that sample exp(−L/temperature)."""

import torch
from sympy import sqrt
from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.equations.hyperparameters import check_not_negative
from flowopt.symbolic.language import LOSS, Equations, Term, g, p, symbol, theta

friction, temperature = symbol("friction"), symbol("temperature")
# exp(-friction · step size) is then 0, and 1 where the step size is 0; of infinity it is nan there.
MOST_FRICTION = 1e300

LANGEVIN = Equations(
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    Term("O", drift={p: -friction * p}, diffusion={p: sqrt(2 * friction * temperature)}),
    energies={"mechanical": LOSS + p**2 / 2},
    reference="Langevin 1908, C. R. Acad. Sci. Paris 146, 530; words: Leimkuhler & Matthews 2013, "
    "Appl. Math. Res. Express 2013(1), 34",
)

OVERDAMPED_LANGEVIN = Equations(
    Term("A", drift={theta: -g}, diffusion={theta: sqrt(2 * temperature)}),
    energies={"loss": LOSS},
    reference="Roberts & Tweedie 1996, Bernoulli 2(4), 341; Welling & Teh 2011, ICML 28, 681",
)


def langevin(*, friction: float | Tensor = 1.0, temperature: float | Tensor) -> EquationFlow:
    """Underdamped Langevin dynamics, dθ = p dt, dp = −∇L dt − γp dt + √(2γT) dW.

    Samples exp(−(L + |p|²/2)/T). Words: "BAOAB", or "BAOA" where only the gradient at the start of
    a step is at hand.

    Args:
        friction: γ, 1/time; infinite friction redraws the momentum at every step. It is taken as
            1e300, so that a step of length 0 redraws nothing.
        temperature: T, in units of the loss as given: for a mean loss over N data, 1/N samples the
            posterior.

    Raises:
        DefinitionError: The temperature is negative.

    Reference:
        Leimkuhler & Matthews 2013, Appl. Math. Res. Express 2013(1), 34.
    """
    if isinstance(friction, Tensor):
        friction = friction.to(torch.float64).clamp(max=MOST_FRICTION)
    elif isinstance(friction, float):
        friction = min(friction, MOST_FRICTION)
    check_not_negative("langevin", temperature=temperature)
    return EquationFlow(LANGEVIN, name="langevin", friction=friction, temperature=temperature)


def overdamped_langevin(*, temperature: float | Tensor) -> EquationFlow:
    """Overdamped Langevin dynamics, dθ = −∇L dt + √(2T) dW.

    Samples exp(−L/T). Word "A" is the Euler–Maruyama scheme.

    Args:
        temperature: T, in units of the loss as given: for a mean loss over N data, 1/N samples the
            posterior.

    Raises:
        DefinitionError: The temperature is negative.

    Reference:
        Roberts & Tweedie 1996, Bernoulli 2(4), 341.
    """
    check_not_negative("overdamped_langevin", temperature=temperature)
    return EquationFlow(OVERDAMPED_LANGEVIN, name="overdamped_langevin", temperature=temperature)
