"""Analytic networks of two parameters whose critical points lie on curves."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.problems.landscapes import CriticalCurve, CriticalPoint, Landscape
from flowopt.problems.neurons import POLY_TWO

DOMAIN = (-3.0, 3.0)


@dataclass(frozen=True)
class Line:
    """The points (s, total − s)."""

    total: float

    def __call__(self, s: Tensor) -> Tensor:
        """(*batch,) → (*batch, 2)."""
        return torch.stack([s, self.total - s], -1)


@dataclass(frozen=True)
class Same:
    """The same numbers all along a curve."""

    numbers: tuple[float, ...]

    def __call__(self, s: Tensor) -> Tensor:
        """(*batch,) → (*batch, numbers)."""
        return torch.tensor(self.numbers).to(s).expand(*s.shape, len(self.numbers))


@dataclass(frozen=True)
class Branch:
    """The points ±(eˢ, e⁻ˢ) of a hyperbola."""

    sign: float

    def __call__(self, s: Tensor) -> Tensor:
        """(*batch,) → (*batch, 2)."""
        return torch.stack([self.sign * s.exp(), self.sign * (-s).exp()], -1)


def _one_datum_residuals(theta: Tensor) -> Tensor:
    return POLY_TWO(theta.sum(-1, keepdim=True))


def _one_datum_loss(theta: Tensor) -> Tensor:
    error = POLY_TWO(theta.sum(-1))
    return 0.5 * error * error


def one_datum() -> Landscape:
    """½ ((w + b)² − 1)²: one neuron σ = z² − 1 on the single datum x = 1."""
    curves = (
        CriticalCurve(Line(-1.0), 0.0, "minimum", Same((0.0, 8.0))),
        CriticalCurve(Line(0.0), 0.5, "maximum", Same((-4.0, 0.0))),
        CriticalCurve(Line(1.0), 0.0, "minimum", Same((0.0, 8.0))),
    )
    summary = "Neuron z² − 1 on one datum: lines of minima and of maxima"
    return Landscape(
        "one_datum", 2, _one_datum_loss, (), curves, DOMAIN, summary, _one_datum_residuals
    )


def _bilinear_residuals(theta: Tensor) -> Tensor:
    return theta[..., :1] * theta[..., 1:] - 1.0


def _bilinear_loss(theta: Tensor) -> Tensor:
    first, second = theta.unbind(-1)
    error = first * second - 1.0
    return 0.5 * error * error


def _bilinear_eigenvalues(s: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(s), 2 * (2 * s).cosh()], -1)


def bilinear() -> Landscape:
    """½ (w₁w₂ − 1)²: two linear neurons in a row."""
    curves = tuple(
        CriticalCurve(Branch(sign), 0.0, "minimum", _bilinear_eigenvalues) for sign in (1.0, -1.0)
    )
    origin = CriticalPoint((0.0, 0.0), 0.5, "saddle", (-1.0, 1.0))
    summary = "Two linear neurons in a row, ½ (w₁w₂ − 1)²: a hyperbola of minima"
    return Landscape(
        "bilinear", 2, _bilinear_loss, (origin,), curves, DOMAIN, summary, _bilinear_residuals
    )


WITH_CURVES: dict[str, Callable[[], Landscape]] = {"one_datum": one_datum, "bilinear": bilinear}
