"""Losses for kernels: friendly ones, and those that break promises."""

import torch
from torch import Tensor


def neuron(theta: Tensor) -> Tensor:
    """One neuron with activation z² − 1 on two points: sums, products, squares."""
    w, b = theta.unbind(-1)
    return 0.25 * ((b * b - 1.0) ** 2 + ((w + b) ** 2 - 1.0) ** 2)


class Scaled:
    """A neuron with a factor that can be changed: a tensor or a number."""

    dim = 2

    def __init__(self, factor):
        self.factor = factor

    def loss(self, theta: Tensor) -> Tensor:
        return self.factor * neuron(theta)


class Plain:
    """A function of theta, of two numbers, as a problem."""

    dim = 2

    def __init__(self, function):
        self.loss = function


class Counting:
    """A loss that grows with every call."""

    dim = 2

    def __init__(self):
        self.calls = 0

    def loss(self, theta: Tensor) -> Tensor:
        self.calls += 1
        return (1.0 + self.calls / 1000.0) * neuron(theta)


class CountingInTensor:
    """The same, counted in a tensor."""

    dim = 2

    def __init__(self):
        self.calls = torch.zeros((), dtype=torch.float64)

    def loss(self, theta: Tensor) -> Tensor:
        self.calls += 1
        return (1.0 + self.calls / 1000.0) * neuron(theta)


class InTrainMode:
    """A network whose batch normalisation moves its buffers."""

    dim = 2

    def __init__(self):
        self.norm = torch.nn.BatchNorm1d(2, dtype=torch.float64)

    def loss(self, theta: Tensor) -> Tensor:
        flat = theta.reshape(-1, 2)
        rows = torch.cat([flat, -flat, flat + 1.0])
        self.norm(rows)
        return neuron(theta)


def branching(theta: Tensor) -> Tensor:
    if bool((theta > 1e9).any()):
        return 2.0 * neuron(theta)
    return neuron(theta)


def random(theta: Tensor) -> Tensor:
    return neuron(theta) + 1e-7 * torch.randn(theta.shape[:-1], dtype=torch.float64)


def listed(theta: Tensor) -> Tensor:
    scale = max(theta.detach().flatten().tolist()) > 1e9
    return neuron(theta) * (2.0 if scale else 1.0)


def transformed(theta: Tensor) -> Tensor:
    return torch.fft.fft(theta.to(torch.complex128)).abs().square().sum(-1)


def coupled(theta: Tensor) -> Tensor:
    """Depends on the other trajectories of the batch."""
    centre = theta.reshape(-1, 2).mean(0)
    return neuron(theta) + 0.1 * ((theta - centre) ** 2).sum(-1)


def sliced_in_place(theta: Tensor) -> Tensor:
    shifted = theta * 1.0
    shifted[..., 0] -= 0.5
    shifted[..., 1:] *= shifted[..., :1].clone()
    return (shifted**2).sum(-1) + neuron(theta)


def partly_undefined(theta: Tensor) -> Tensor:
    """NaN where the first parameter is positive."""
    return neuron(theta) + torch.sqrt(-theta[..., 0]) + theta[..., 1] ** 2
