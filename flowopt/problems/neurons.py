"""Functions of one number of which the analytic networks are made: activations and losses.

They are objects and functions of the module, so that a problem can be copied and pickled.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Of gelu(z) = z/(1 + exp(−scale·z)).
GELU_SCALE = 1.702

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Polynomial:
    """A polynomial with whole coefficients, from the highest power.

    By Horner's rule: exact to the bit wherever the numbers allow.
    """

    coefficients: tuple[int, ...]

    def __call__(self, z: Tensor) -> Tensor:
        """Its value, elementwise."""
        first, *others, last = self.coefficients
        result = first * z
        for coefficient in others:
            result = (result + coefficient if coefficient else result) * z
        return result + last if last else result


@dataclass(frozen=True)
class Squared:
    """¼ (σ − y)²: half the squared error of an activation, averaged over two data."""

    activation: Function
    target: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """Its value, elementwise."""
        error = self.activation(z) - self.target if self.target else self.activation(z)
        return 0.25 * error * error


@dataclass(frozen=True)
class Residual:
    """(σ − y)/√2, half of whose square is `Squared`."""

    activation: Function
    target: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """Its value, elementwise."""
        return (self.activation(z) - self.target) * math.sqrt(0.5)


def rational_loss(z: Tensor) -> Tensor:
    """−½ ln σ, σ = K (1 + z²)/(z² − 2z + 2) with maximum 1: cross-entropy for targets 1."""
    return 0.5 * torch.log((z * z - 2 * z + 2) * ((3 + math.sqrt(5)) / 2) / (1 + z * z))


def bell_wall(s: Tensor) -> Tensor:
    """Cross-entropy of σ = exp(−z²/2) at x = 0, 1, 2 with targets 1, 0, 1: what s = w + b adds."""
    half = 0.5 * s * s
    return (s * s - torch.log(-torch.expm1(-half))) / 3


def bell_width(w: Tensor) -> Tensor:
    """The rest of that cross-entropy."""
    return w * w / 3


def flat_loss(z: Tensor) -> Tensor:
    """exp(−1/z²), which underflows to zero long before z² is too small to divide by."""
    return torch.exp(-1 / (z * z).clamp(min=1e-3))


def flat_residual(z: Tensor) -> Tensor:
    """Half of its square is `flat_loss`."""
    return math.sqrt(2.0) * torch.exp(-0.5 / (z * z).clamp(min=1e-3))


def gelu(z: Tensor) -> Tensor:
    """z/(1 + exp(−1.702 z))."""
    return z * torch.sigmoid(GELU_SCALE * z)


def double_exponential(z: Tensor) -> Tensor:
    """exp((z⁴ − 2z²)/2)."""
    square = z * z
    return torch.exp(0.5 * square * (square - 2))


POLY_TWO = Polynomial((1, 0, -1))
