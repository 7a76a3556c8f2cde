"""Published optimizers as data: a flow, a scheme and a map of the classic hyperparameters."""

from flowopt.classic.from_torch import from_torch
from flowopt.classic.method import Method, Rule
from flowopt.classic.rules import adagrad, adam, adamw, rmsprop, sgd

__all__ = ["Method", "Rule", "adagrad", "adam", "adamw", "from_torch", "rmsprop", "sgd"]
