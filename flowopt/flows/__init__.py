"""Flows of the literature, one file per family, one function per flow."""

from flowopt.flows.adaptive import adagrad, adam, rmsprop
from flowopt.flows.direction import (
    clipped_gradient,
    lion,
    normalised_gradient,
    p_gradient,
    sign_gradient,
)
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.gradient import gradient_flow
from flowopt.flows.langevin import langevin, overdamped_langevin
from flowopt.flows.moments import adabelief, adamax, amsgrad, radam, yogi
from flowopt.flows.momentum import (
    accelerated_gradient,
    fading_friction,
    heavy_ball,
    momentum_ema,
    nesterov,
    nesterov_ema,
)
from flowopt.flows.newton import inna, levenberg_marquardt
from flowopt.flows.partitioned.partitioned_flow import PartitionedFlow
from flowopt.flows.thermostat import adaptive_langevin, nose_hoover

__all__ = [
    "EquationFlow",
    "PartitionedFlow",
    "accelerated_gradient",
    "adabelief",
    "adagrad",
    "adam",
    "adamax",
    "adaptive_langevin",
    "amsgrad",
    "clipped_gradient",
    "fading_friction",
    "gradient_flow",
    "heavy_ball",
    "inna",
    "langevin",
    "levenberg_marquardt",
    "lion",
    "momentum_ema",
    "nesterov",
    "nesterov_ema",
    "normalised_gradient",
    "nose_hoover",
    "overdamped_langevin",
    "p_gradient",
    "radam",
    "rmsprop",
    "sign_gradient",
    "yogi",
]
