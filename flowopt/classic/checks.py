"""Checks of classic hyperparameters, in torch's own words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowopt.errors import ConfigurationError

WORDS = {
    "lr": "learning rate",
    "momentum": "momentum value",
    "weight_decay": "weight_decay value",
    "eps": "epsilon value",
    "alpha": "alpha value",
    "lr_decay": "lr_decay value",
    "initial_accumulator_value": "initial_accumulator_value value",
    "friction": "friction value",
    "temperature": "temperature value",
}


def check_not_negative(**values: float | Tensor) -> None:
    """Raises `ConfigurationError` for what is negative or not a number."""
    for name, value in values.items():
        if not bool((torch.as_tensor(value) >= 0).all()):
            raise ConfigurationError(f"Invalid {WORDS[name]}: {value}")


def check_betas(betas: Sequence[float]) -> None:
    """Raises `ConfigurationError` for betas outside of [0, 1)."""
    if len(betas) != 2:
        raise ConfigurationError(f"betas are a pair, got {betas!r}")
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ConfigurationError(f"Invalid beta parameter at index {index}: {beta}")


def check_below_one(**values: float | Tensor) -> None:
    """Raises `ConfigurationError` for decay factors of 1 and more, which never forget."""
    for name, value in values.items():
        if not bool((torch.as_tensor(value) < 1).all()):
            raise ConfigurationError(f"Invalid {WORDS[name]}: {value}; expected a number below 1")
