"""A small network, its data, and the training loop that every user writes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flowopt.problems import Minibatches, Network, network

STEPS = 300


def small_network() -> nn.Sequential:
    """Three layers' worth of leaves with different shapes, always the same."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def small_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (40,), generator=generator)


def small_problem() -> Network:
    """The network with minibatches."""
    return network(small_network(), cross_entropy, small_data(), batch=Minibatches(10))


def flat_parameters(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def flat_position(position: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in position.values()])


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float] | None = None,
    steps: int = STEPS,
    first: int = 0,
) -> Tensor:
    """A training loop on the minibatches of `small_problem`; the parameters at its end."""
    problem = small_problem()
    scheduler = schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for step in range(first, first + steps):
        rows = problem.draw(step, 0, ())
        optimizer.zero_grad()
        cross_entropy(module(problem.inputs[rows]), problem.targets[rows]).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return flat_parameters(module)


def closure_of(
    module: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> Callable[[], Tensor]:
    """A closure of the full batch, as torch's optimizers take it."""

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(module(inputs), targets)
        loss.backward()
        return loss

    return closure
