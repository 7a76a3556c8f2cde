"""Energies along a flow: dE/dt from the equations, by the chain rule and Itô's formula."""

from dataclasses import dataclass

import sympy

from flowopt.errors import DefinitionError
from flowopt.symbolic.language import LOSS, Equations, Term, g, t, theta, total


@dataclass(frozen=True)
class Energy:
    """An energy or its rate: Σ density over elements, plus a scalar part (which holds the loss)."""

    density: sympy.Expr
    scalar: sympy.Expr

    @property
    def expression(self) -> sympy.Expr:
        """The sum, in which elementwise terms are summed over elements implicitly."""
        return sympy.simplify(self.density + self.scalar)


def energy_of(equations: Equations, name: str) -> Energy:
    """A declared energy, split into what is summed over elements and what is not.

    Raises:
        DefinitionError: The flow declares no such energy.
    """
    if name not in equations.energies:
        raise DefinitionError(
            f"no energy {name!r}: the flow declares {sorted(equations.energies) or 'none'}"
        )
    parts = sympy.Add.make_args(sympy.expand_mul(equations.energies[name]))
    density = [part for part in parts if equations.elementwise(part)]
    scalar = [part for part in parts if not equations.elementwise(part)]
    return Energy(sympy.Add(*density), sympy.Add(*scalar))


def energy_rate(equations: Equations, name: str) -> Energy:
    """dE/dt along the flow.

    dE/dt = ∂E/∂t + ∂E/∂L g·θ' + Σₓ (∂E/∂x · x' + ½ σₓ² ∂²E/∂x²)

    Raises:
        DefinitionError: No such energy; or noise drives θ, whose rate needs the Laplacian of the
            loss; or the energy is no (scalar)·L + sum over elements.
    """
    energy = energy_of(equations, name)
    slope = energy.scalar.diff(LOSS)
    if energy.density.has(total, LOSS) or energy.scalar.has(total) or slope.has(LOSS):
        raise DefinitionError(
            f"energy {name!r}, {equations.energies[name]}, is not (scalar)·L + a sum over "
            "elements: its rate is not derived"
        )
    density, scalar = [energy.density.diff(t)], [energy.scalar.diff(t)]
    for term in equations.terms:
        for variable in term.moved:
            drift = term.drift.get(variable, sympy.S.Zero)
            density.append(energy.density.diff(variable) * drift)
            if variable == theta:
                density.append(slope * g * drift)
            scalar.append(energy.scalar.diff(variable) * drift)
            density.extend(_ito(term, variable, energy.density))
            scalar.extend(_ito(term, variable, energy.scalar))
    return Energy(sympy.simplify(sympy.Add(*density)), sympy.simplify(sympy.Add(*scalar)))


def _ito(term: Term, variable: sympy.Symbol, part: sympy.Expr) -> list[sympy.Expr]:
    """½ σᵢσⱼ ∂²E/∂xᵢ∂xⱼ for the noise of one term."""
    amplitudes = term.amplitudes(variable)
    if amplitudes and variable == theta:
        raise DefinitionError(
            f"noise moves theta in term {term.letter!r}: the energy's rate needs the Laplacian of "
            "the loss, which this version does not derive"
        )
    return [
        amplitude * term.amplitudes(other).get(wiener, 0) * part.diff(variable, other) / 2
        for wiener, amplitude in amplitudes.items()
        for other in term.diffusion
    ]
