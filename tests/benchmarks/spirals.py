"""The two-spiral network: 2–12–12–12–1, tanh, a sigmoid at the end, mean square on 100 points."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import flowopt as fo

POINTS, TURNS = 100, 1.5
Gradient = Callable[[], object]


def spirals() -> tuple[Tensor, Tensor]:
    """Points of two arms and which arm each belongs to, (100, 2) and (100, 1).

    Reference:
        Lang & Witbrock 1988, "Learning to tell two spirals apart", Connectionist Models.
    """
    along = torch.linspace(0.1, 1.0, POINTS // 2, dtype=torch.float64)
    angle = 2.0 * math.pi * TURNS * along
    arm = torch.stack([along * torch.cos(angle), along * torch.sin(angle)], -1)
    arms = torch.arange(2, dtype=torch.float64).repeat_interleave(POINTS // 2)
    return torch.cat([arm, -arm]), arms[:, None]


def problem() -> fo.problems.Network:
    """The network, 361 parameters."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(2, 12), nn.Tanh()]
    layers += [nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh()]
    module = nn.Sequential(*layers, nn.Linear(12, 1), nn.Sigmoid()).double()
    return fo.problems.network(module, nn.functional.mse_loss, spirals())


def starts(network: fo.problems.Network, replicas: int) -> dict[str, Tensor]:
    """The module's parameters with a little noise for every replica."""
    generator = torch.Generator().manual_seed(0)
    first = network.start(replicas)
    return {n: w + 0.1 * torch.randn(w.shape, generator=generator).to(w) for n, w in first.items()}


def vmap_gradients(network: fo.problems.Network, start: dict[str, Tensor], steps: int) -> Gradient:
    """`torch.func.vmap` of `torch.func.grad` over replicas, as often as there are steps."""

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        outputs = functional_call(network.module, parameters, (network.inputs,))
        return nn.functional.mse_loss(outputs, network.targets)

    gradient = vmap(grad(loss))

    def run() -> None:
        for _ in range(steps):
            gradient(start)

    return run


def batched_gradients(
    network: fo.problems.Network, start: dict[str, Tensor], steps: int
) -> Gradient:
    """The same by hand: a batched matrix product for every layer, and autograd once."""
    leaves = list(start.values())

    def gradient() -> tuple[Tensor, ...]:
        weights = [leaf.detach().requires_grad_() for leaf in leaves]
        layers = list(zip(weights[::2], weights[1::2], strict=True))
        value = network.inputs.expand(len(leaves[0]), -1, -1)
        for weight, bias in layers[:-1]:
            value = torch.tanh(torch.baddbmm(bias[:, None], value, weight.transpose(1, 2)))
        weight, bias = layers[-1]
        value = torch.sigmoid(torch.baddbmm(bias[:, None], value, weight.transpose(1, 2)))
        loss = ((value - network.targets) ** 2).mean((1, 2)).sum()
        return torch.autograd.grad(loss, weights)

    def run() -> None:
        for _ in range(steps):
            gradient()

    return run
