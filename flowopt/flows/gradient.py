"""First-order flows that follow the gradient."""

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.language import LOSS, Equations, Term, g, theta

GRADIENT_FLOW = Equations(
    Term("A", drift={theta: -g}),
    energies={"loss": LOSS},
    reference="Cauchy 1847, C. R. Acad. Sci. Paris 25, 536",
)


def gradient_flow() -> EquationFlow:
    """Gradient flow, θ' = −∇L; its explicit Euler scheme is gradient descent with lr = h.

    Reference:
        Cauchy 1847, C. R. Acad. Sci. Paris 25, 536.
    """
    return EquationFlow(GRADIENT_FLOW, name="gradient_flow")
