"""One training run: a method, a rate and a seed, until the budget is spent."""

from __future__ import annotations

import math

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import flowopt as fo
from studies.common.data import Dataset
from studies.common.tasks import initial_network
from studies.controls.config import METHODS, Config

GRADIENT = fo.forward_passes({"gradients": 1})


def training_rows(dataset: Dataset, config: Config, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of the first rows of a data set, some labels drawn at random."""
    rows = config.rows or len(dataset.train_inputs)
    labels = dataset.train_labels[:rows].clone()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(labels), generator=generator) < config.random_labels
    drawn = torch.randint(dataset.classes, (len(labels),), generator=generator)
    labels[chosen] = drawn[chosen].to(labels.device)
    return dataset.train_inputs[:rows], labels


def budget(config: Config, rows: int) -> int:
    """What every run may cost, in forward passes of a minibatch."""
    batch = config.batch or rows
    return GRADIENT * config.epochs * (rows // batch)


def train(config: Config, dataset: Dataset, method: str, rate: float, seed: int) -> xr.Dataset:
    """Train one network at the cost of the budget.

    Args:
        config: For how long, in which minibatches.
        dataset: With clean labels, on the device of the training.
        method: A name of `METHODS`.
        rate: Learning rate, or first step of the control.
        seed: Of weights, minibatches and random labels.

    Returns:
        "training_loss" (on the labels that were trained on) and "test_loss", nats; "test_accuracy",
        a share; "cost", forward passes of a minibatch; "steps", "rejected", and "last_rate".
    """
    inputs, labels = training_rows(dataset, config, seed)
    module = initial_network(dataset, config.hidden, seed)
    minibatches = fo.problems.Minibatches(config.batch) if config.batch else None
    problem = fo.problems.network(module, cross_entropy, (inputs, labels), batch=minibatches)
    optimizer = METHODS[method](module.parameters(), rate, minibatches is None)
    most, cost, step = budget(config, len(inputs)), 0, 0
    control = optimizer.control
    while cost + GRADIENT <= most and all(map(_finite, module.parameters())):
        rows = problem.draw(step, seed, ())
        _step(
            optimizer, module, *((inputs, labels) if rows is None else (inputs[rows], labels[rows]))
        )
        step += 1
        rejecting = control is not None and control.rejects
        cost = fo.forward_passes(optimizer.counts) if rejecting else GRADIENT * step
    with torch.no_grad():
        scores = module(dataset.test_inputs)
        correct = (scores.argmax(-1) == dataset.test_labels).double().mean()
        return xr.Dataset(
            {
                "training_loss": float(cross_entropy(module(inputs), labels)),
                "test_loss": float(cross_entropy(scores, dataset.test_labels)),
                "test_accuracy": float(correct),
                "cost": cost,
                "steps": step,
                "rejected": optimizer.counts["rejected"],
                "last_rate": optimizer.param_groups[0]["lr"],
            }
        )


def _finite(parameter: Tensor) -> bool:
    return math.isfinite(float(parameter.detach().sum()))


def _step(
    optimizer: fo.optim.FlowOptimizer, module: nn.Module, inputs: Tensor, labels: Tensor
) -> None:
    optimizer.step(loss=lambda: cross_entropy(module(inputs), labels))
