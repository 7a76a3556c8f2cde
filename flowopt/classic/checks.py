"""Checks of classic hyperparameters, in torch's own words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.errors import ConfigurationError

# Where torch does not call it by its argument's name.
WORDS = {"lr": "learning rate", "eps": "epsilon value"}


def _words(name: str) -> str:
    return WORDS.get(name, f"{name} value")


def check_not_negative(**values: float | Tensor) -> None:
    """Raises `ConfigurationError` for what is negative or not a number, and an infinite lr."""
    for name, value in values.items():
        number = real_tensor(name, value)
        if not bool((number >= 0).all()):
            raise ConfigurationError(f"Invalid {_words(name)}: {value}")
        if name == "lr" and not bool((number < torch.inf).all()):
            raise ConfigurationError(f"Invalid {_words(name)}: {value}; expected a finite number")


def check_betas(betas: Sequence[float]) -> None:
    """Raises `ConfigurationError` for betas outside of [0, 1)."""
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ConfigurationError(f"betas are a pair, as in (0.9, 0.999), got {betas!r}")
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ConfigurationError(f"betas must be either both floats or both Tensors, got {betas}")
    for index, beta in enumerate(betas):
        value = real_tensor("beta", beta)
        if not bool(((value >= 0) & (value < 1)).all()):
            raise ConfigurationError(f"Invalid beta parameter at index {index}: {beta}")


def check_below_one(**values: float | Tensor) -> None:
    """Raises `ConfigurationError` for decay factors of 1 and more, which never forget."""
    for name, value in values.items():
        if not bool((real_tensor(name, value) < 1).all()):
            raise ConfigurationError(f"Invalid {_words(name)}: {value}; expected a number below 1")
