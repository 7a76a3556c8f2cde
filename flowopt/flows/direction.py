"""Flows that follow the direction of the gradient, whatever its size."""

from sympy import Abs, Min, sign, sqrt
from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.language import LOSS, Equations, Term, g, symbol, theta, total

eps, power, threshold = symbol("eps"), symbol("power"), symbol("threshold")
m, rate, memory = symbol("m"), symbol("rate"), symbol("memory")

NORM = sqrt(total(g**2))

NORMALISED_GRADIENT = Equations(
    Term("A", drift={theta: -g / (NORM + eps)}),
    energies={"loss": LOSS},
    reference="Cortes 2006, Automatica 42(11), 1993",
)

P_GRADIENT = Equations(
    Term("A", drift={theta: -g / (NORM ** ((power - 2) / (power - 1)) + eps)}),
    energies={"loss": LOSS},
    reference="Wibisono, Wilson & Jordan 2016, PNAS 113(47), E7351, rescaled gradient flow",
)

SIGN_GRADIENT = Equations(
    Term("A", drift={theta: -sign(g)}),
    energies={"loss": LOSS},
    reference="Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, arXiv 1802.04434",
)

CLIPPED_GRADIENT = Equations(
    Term("A", drift={theta: -Min(1, threshold / NORM) * g}),
    energies={"loss": LOSS},
    reference="Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063, algorithm 1",
)

LION = Equations(
    Term("M", drift={m: rate * (g - m)}),
    Term("A", drift={theta: -sign(memory * m + (1 - memory) * g)}),
    energies={"lyapunov": rate * LOSS + memory * Abs(m)},
    reference="Chen et al. 2023, arXiv 2302.06675; its energy: Chen, Liu, Liang & Liu 2024, "
    "arXiv 2310.05898",
)


def normalised_gradient(*, eps: float | Tensor = 1e-12) -> EquationFlow:
    """Normalised gradient flow, θ' = −∇L/(|∇L| + eps), of unit speed.

    Args:
        eps: Added to the norm, unit of the gradient, so that a point of rest stays one.

    Reference:
        Cortés 2006, Automatica 42(11), 1993.
    """
    return EquationFlow(NORMALISED_GRADIENT, name="normalised_gradient", eps=eps)


def p_gradient(*, power: float | Tensor = 3.0, eps: float | Tensor = 1e-12) -> EquationFlow:
    """Rescaled gradient flow, θ' = −∇L/(|∇L|^((p − 2)/(p − 1)) + eps).

    p = 2 is the gradient flow, p → ∞ the normalised one.

    Args:
        power: p > 1.
        eps: Added to the divisor, so that a point of rest stays one.

    Reference:
        Wibisono, Wilson & Jordan 2016, PNAS 113(47), E7351.
    """
    return EquationFlow(P_GRADIENT, name="p_gradient", power=power, eps=eps)


def sign_gradient() -> EquationFlow:
    """Sign gradient flow, θ' = −sign(∇L), each coordinate at unit speed.

    Reference:
        Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, arXiv 1802.04434.
    """
    return EquationFlow(SIGN_GRADIENT, name="sign_gradient")


def clipped_gradient(*, threshold: float | Tensor = 1.0) -> EquationFlow:
    """Clipped gradient flow, θ' = −min(1, threshold/|∇L|)·∇L.

    Args:
        threshold: Largest speed, unit of the gradient.

    Reference:
        Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063, algorithm 1.
    """
    return EquationFlow(CLIPPED_GRADIENT, name="clipped_gradient", threshold=threshold)


def lion(*, rate: float | Tensor = 1.0, memory: float | Tensor = 0.9) -> EquationFlow:
    """Lion, θ' = −sign(memory·m + (1 − memory)·∇L), m' = rate·(∇L − m).

    Word "MA" with h = lr, rate·h = −ln β₂ and memory = β₁/β₂ is the published rule without weight
    decay; memory 1 is Signum.

    Args:
        rate: At which the average forgets, 1/time.
        memory: Share of the average in the direction; the rest is the fresh gradient.

    Reference:
        Chen et al. 2023, arXiv 2302.06675.
    """
    return EquationFlow(LION, name="lion", rate=rate, memory=memory)
