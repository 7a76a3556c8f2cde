"""Flows that feel the curvature: by differences of gradients, or the Gauss–Newton matrix."""

from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.functions import damped
from flowopt.symbolic.language import LOSS, Equations, Term, g, symbol, theta

friction, damping, psi = symbol("friction"), symbol("damping"), symbol("psi")

RESTORING = (friction - 1 / damping) * theta + psi / damping

INNA = Equations(
    Term("A", drift={theta: -RESTORING - damping * g, psi: -RESTORING}),
    start={psi: (1 - friction * damping) * theta},
    energies={"lyapunov": (1 + friction * damping) * LOSS + RESTORING**2 / 2},
    reference="Castera, Bolte, Fevotte & Pauwels 2021, JMLR 22(134), 1, equation 5",
)


def inna(*, friction: float | Tensor = 0.5, damping: float | Tensor = 0.1) -> EquationFlow:
    """Inertial Newton flow, θ'' + α θ' + β ∇²L(θ) θ' + ∇L(θ) = 0, without second derivatives.

    θ' = −w − β∇L,  ψ' = −w,  w = (α − 1/β)θ + ψ/β;  ψ = (1 − αβ)θ at the start, where w is zero.

    Word "A" with maps={"A": "euler"} is the published rule. Its energy (1 + αβ)L + |w|²/2 changes
    at −α|θ'|² − β|∇L|².

    Args:
        friction: α, 1/time.
        damping: β > 0, time over which curvature damps.

    Reference:
        Castera, Bolte, Févotte & Pauwels 2021, JMLR 22(134), 1.
    """
    return EquationFlow(INNA, name="inna", friction=friction, damping=damping)


LEVENBERG_MARQUARDT = Equations(
    Term("A", drift={theta: -damped(g, damping)}),
    energies={"loss": LOSS},
    reference="Marquardt 1963, J. SIAM 11(2), 431",
)


def levenberg_marquardt(*, damping: float | Tensor = 1.0) -> EquationFlow:
    """Damped Gauss–Newton flow, θ' = −(Q + μI)⁻¹∇L, for problems with residuals and networks.

    Q is the Gauss–Newton matrix, JᵀJ where L = ½|r|² with J = ∂r/∂θ. Explicit Euler with h = 1 is
    the rule of Levenberg and Marquardt, and the same as linearly implicit Euler with h = 1/μ along
    the gradient flow: `LinearlyImplicitEuler(gauss_newton=True)`, which has damping rules, too.
    The loss changes at −∇Lᵀ(Q + μI)⁻¹∇L. Dense systems, for few parameters.

    Args:
        damping: μ > 0, unit of Q.

    Reference:
        Levenberg 1944, Q. Appl. Math. 2(2), 164; Marquardt 1963, J. SIAM 11(2), 431.
    """
    return EquationFlow(LEVENBERG_MARQUARDT, name="levenberg_marquardt", damping=damping)
