"""Weight decay as a change of equations."""

from flowopt.symbolic.language import LOSS, Equations, Term, g, symbol, theta

weight_decay = symbol("weight_decay")


def with_l2(equations: Equations) -> Equations:
    """The same flow on L + ½ λ|θ|², in its drifts (∇L + λθ) and in its energies."""
    changed = equations.substitute({g: g + weight_decay * theta})
    energies = {
        name: energy + energy.diff(LOSS) * weight_decay * theta**2 / 2
        for name, energy in equations.energies.items()
    }
    return changed.replace(energies=energies)


def with_decoupled_decay(equations: Equations) -> Equations:
    """The flow with one more term, W: θ' = −λθ.

    Reference:
        Loshchilov & Hutter 2019, arXiv 1711.05101.
    """
    term = Term("W", drift={theta: -weight_decay * theta})
    return equations.replace(terms=(*equations.terms, term))
