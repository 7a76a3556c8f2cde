"""Slow twins: published rules as loops over plain tensors."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]


def heavy_ball(
    position: Tensor, gradient: Gradient, *, friction: float, step_size: float, steps: int
) -> Tensor:
    """Friction, kick, drift.

    Reference:
        Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1.
    """
    momentum = torch.zeros_like(position)
    for _ in range(steps):
        momentum = math.exp(-friction * step_size) * momentum
        momentum = momentum - step_size * gradient(position)
        position = position + step_size * momentum
    return position


def adam(
    position: Tensor,
    gradient: Gradient,
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    steps: int,
) -> Tensor:
    """Algorithm 1.

    Reference:
        Kingma & Ba 2015, arXiv 1412.6980.
    """
    first = torch.zeros_like(position)
    second = torch.zeros_like(position)
    for step in range(1, steps + 1):
        g = gradient(position)
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * g**2
        corrected_first = first / (1 - beta1**step)
        corrected_second = second / (1 - beta2**step)
        position = position - learning_rate * corrected_first / (torch.sqrt(corrected_second) + eps)
    return position


def baoab(
    position: Tensor,
    gradient: Gradient,
    normals: Iterable[Tensor],
    *,
    friction: float,
    temperature: float,
    step_size: float,
) -> Tensor:
    """One step for each of the normals.

    Reference:
        Leimkuhler & Matthews 2013, Appl. Math. Res. Express 2013(1), 34.
    """
    momentum = torch.zeros_like(position)
    decay = math.exp(-friction * step_size)
    spread = math.sqrt(temperature * (1 - decay**2))
    for normal in normals:
        momentum = momentum - step_size / 2 * gradient(position)
        position = position + step_size / 2 * momentum
        momentum = decay * momentum + spread * normal
        position = position + step_size / 2 * momentum
        momentum = momentum - step_size / 2 * gradient(position)
    return position
