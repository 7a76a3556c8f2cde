"""Published optimizers as data: a flow, a scheme and a map of the classic hyperparameters."""

from flowopt.classic.adaptive_rules import adabelief, adadelta, adamax, amsgrad, nadam, radam, yogi
from flowopt.classic.direction_rules import clipped_gd, lion, normalised_gd, sign_sgd, signum
from flowopt.classic.from_torch import from_torch
from flowopt.classic.method import Method, Rule
from flowopt.classic.momentum_rules import accelerated_gradient, heavy_ball, inna
from flowopt.classic.rules import adagrad, adam, adamw, rmsprop, sgd
from flowopt.classic.sampling_rules import psgld, sghmc, sgld, sgnht

__all__ = [
    "Method",
    "Rule",
    "accelerated_gradient",
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "clipped_gd",
    "from_torch",
    "heavy_ball",
    "inna",
    "lion",
    "nadam",
    "normalised_gd",
    "psgld",
    "radam",
    "rmsprop",
    "sgd",
    "sghmc",
    "sgld",
    "sgnht",
    "sign_sgd",
    "signum",
    "yogi",
]
