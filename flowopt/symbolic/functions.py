"""Functions that formulas may use beside those of sympy."""

from typing import Any

import sympy


class total(sympy.Function):
    """Sum of an elementwise expression over all elements of one trajectory."""

    nargs = 1


class laplacian(sympy.Function):
    """Sum of the second derivatives of the loss, Δ, as laplacian(L)."""

    nargs = 1


class curvature(sympy.Function):
    """Second derivative of the loss by each element, ∂²/∂θᵢ², as curvature(L)."""

    nargs = 1


class damped(sympy.Function):
    """The solution d of (Q + μI)d = ∇L with the Gauss–Newton matrix Q, as damped(g, damping)."""

    nargs = 2
    is_extended_real = True

    def _latex(self, printer: Any) -> str:
        gradient, damping = map(printer._print, self.args)
        return rf"\left(Q + {damping} I\right)^{{-1}} {gradient}"


class phi1(sympy.Function):
    """The function (exp(z) − 1)/z, with value 1 at z = 0."""

    nargs = 1


class phi(sympy.Function):
    """The function φₖ(z) = Σₙ zⁿ/(n + k)!, as phi(k, z): φ₀ = exp, zφₖ₊₁ = φₖ − 1/k!."""

    nargs = 2

    def fdiff(self, argindex: int = 2) -> sympy.Expr:
        """Derivative by z: φₖ' = φₖ − kφₖ₊₁."""
        order, z = self.args
        return phi(order, z) - order * phi(order + 1, z)
