"""Flows of the literature, one file per family, one function per flow."""

from flowopt.flows.adaptive import adagrad, adam, rmsprop
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.gradient import gradient_flow
from flowopt.flows.langevin import langevin
from flowopt.flows.momentum import (
    accelerated_gradient,
    heavy_ball,
    momentum_ema,
    nesterov,
    nesterov_ema,
)

__all__ = [
    "EquationFlow",
    "accelerated_gradient",
    "adagrad",
    "adam",
    "gradient_flow",
    "heavy_ball",
    "langevin",
    "momentum_ema",
    "nesterov",
    "nesterov_ema",
    "rmsprop",
]
