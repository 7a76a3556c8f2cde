"""Optimizers of which many tests ask the same."""

import torch

import flowopt as fo
from flowopt.optim import FlowOptimizer

STEP_SIZE = 0.2
PRESETS = [
    (fo.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (fo.optim.Adam, {"lr": 1e-2}),
    (fo.optim.AdamW, {"lr": 1e-2}),
    (fo.optim.RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.9}),
    (fo.optim.Adagrad, {"lr": 1e-2, "lr_decay": 0.1}),
]


def langevin():
    return fo.flows.langevin(friction=1.0, temperature=1e-3)


def langevin_optimizer(module, seed=3):
    return FlowOptimizer(
        module.parameters(), langevin(), fo.Splitting("BAOA"), lr=STEP_SIZE, seed=seed
    )


def assert_identical(found, expected):
    assert torch.equal(found, expected)


def two_groups(module, lr):
    first, last = module[0].parameters(), module[2].parameters()
    return [{"params": first, "lr": lr}, {"params": last, "weight_decay": 0.1}]


def kept_tensors(optimizer, parameter):
    """What an optimizer keeps of a parameter, by name, without the clock of its steps."""
    kept = optimizer.state[parameter].items()
    return {name: value for name, value in kept if isinstance(value, torch.Tensor)}
