"""Flows with a thermostat: a friction that moves until the momentum has its temperature."""

from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.equations.hyperparameters import check_not_negative
from flowopt.symbolic.language import LOSS, Equations, Term, g, p, symbol, theta, total

xi, heat = symbol("xi"), symbol("heat")
temperature, coupling = symbol("temperature"), symbol("coupling")
driving_noise = symbol("driving_noise")

NOSE_HOOVER = Equations(
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    Term("C", drift={p: -xi * p, heat: xi * total(temperature)}),
    Term("E", drift={xi: coupling * total(p**2 - temperature)}),
    scalars=[xi, heat],
    energies={"extended": LOSS + p**2 / 2 + xi**2 / (2 * coupling) + heat},
    reference="Nose 1984, J. Chem. Phys. 81, 511; Hoover 1985, Phys. Rev. A 31, 1695",
)

ADAPTIVE_LANGEVIN = Equations(
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    Term("C", drift={p: -xi * p}),
    Term("D", drift={}, diffusion={p: driving_noise}),
    Term("E", drift={xi: coupling * total(p**2 - temperature)}),
    scalars=[xi],
    energies={"extended": LOSS + p**2 / 2 + xi**2 / (2 * coupling)},
    reference="Jones & Leimkuhler 2011, J. Chem. Phys. 135, 084125; Leimkuhler & Shang 2016, "
    "SIAM J. Sci. Comput. 38(2), A712",
)


def nose_hoover(*, temperature: float | Tensor, coupling: float | Tensor = 1.0) -> EquationFlow:
    """Nosé–Hoover dynamics, θ' = p, p' = −∇L − ξp, ξ' = ε(|p|² − N·T), without noise.

    L + |p|²/2 + ξ²/(2ε) + heat is conserved, where heat' = N·T·ξ is what the bath has taken.

    Args:
        temperature: T, in units of the loss as given.
        coupling: ε, 1/(loss·time²).

    Raises:
        DefinitionError: The temperature is negative.

    Reference:
        Hoover 1985, Phys. Rev. A 31, 1695.
    """
    check_not_negative("nose_hoover", temperature=temperature)
    return EquationFlow(NOSE_HOOVER, name="nose_hoover", temperature=temperature, coupling=coupling)


def adaptive_langevin(
    *,
    temperature: float | Tensor,
    driving_noise: float | Tensor = 0.01,
    coupling: float | Tensor = 0.05,
) -> EquationFlow:
    """Adaptive Langevin, dθ = p dt, dp = (−∇L − ξp) dt + σ dW, dξ = ε(|p|² − N·T) dt.

    Samples exp(−(L + |p|²/2)/T) whatever noise of constant covariance the gradient has; ξ settles
    at σ²/(2T) with variance ε·T. Word "ACDEDCAB" is AdLaLa's; "BAE(CD)EAB" is Leimkuhler and
    Shang's, which they call BADODAB: friction and noise in one exact move, and positions of a
    quadratic loss without bias.

    Args:
        temperature: T, in units of the loss as given: for a mean loss over N data, 1/N samples the
            posterior.
        driving_noise: σ of the momentum's own noise.
        coupling: ε of the thermostat, one ξ for each block of parameters.

    Raises:
        DefinitionError: The temperature is negative.

    Reference:
        Leimkuhler & Shang 2016, SIAM J. Sci. Comput. 38(2), A712.
    """
    check_not_negative("adaptive_langevin", temperature=temperature)
    return EquationFlow(
        ADAPTIVE_LANGEVIN,
        name="adaptive_langevin",
        temperature=temperature,
        driving_noise=driving_noise,
        coupling=coupling,
    )
