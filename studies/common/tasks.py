"""What is trained on a data set: a network of one hidden layer, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from studies.common.data import Dataset


@dataclass(frozen=True)
class Task:
    """What is trained on a data set, unless the user says otherwise.

    Attributes:
        hidden: Width of the one hidden layer.
        activation: Between the layers.
        batch: Rows of a minibatch.
        epochs: Budget, in epochs of gradients.
        points: Into how many parts the records divide a run.
    """

    hidden: int
    activation: type[nn.Module]
    batch: int
    epochs: float
    points: int


TASKS: Mapping[str, Task] = {
    "digits": Task(hidden=32, activation=nn.Tanh, batch=64, epochs=30, points=40),
    "iris": Task(hidden=8, activation=nn.Tanh, batch=20, epochs=50, points=25),
    "mnist": Task(hidden=128, activation=nn.ReLU, batch=128, epochs=5, points=20),
    "cifar10": Task(hidden=128, activation=nn.ReLU, batch=128, epochs=5, points=20),
}


def initial_network(dataset: Dataset, hidden: int, seed: int) -> nn.Module:
    """A network of one hidden layer, its weights drawn from the seed.

    Args:
        dataset: Gives features, classes and, by its task, the activation.
        hidden: Width of the hidden layer.
        seed: Weights and biases are uniform within ±1/√inputs of their layer, as in torch.

    Returns:
        The module, on the data's device.
    """
    features = dataset.train_inputs.shape[1]
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for inputs, outputs in ((features, hidden), (hidden, dataset.classes)):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        layers.append(layer)
    module = nn.Sequential(layers[0], TASKS[dataset.name].activation(), layers[1])
    return module.to(dataset.train_inputs.device)
