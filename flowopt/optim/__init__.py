"""Flows as torch optimizers."""

from flowopt.optim.controlled.presets import EnergyAdam, EnergyGD, EnergyMomentum
from flowopt.optim.flow_optimizer import FlowOptimizer
from flowopt.optim.least_squares import LevenbergMarquardt
from flowopt.optim.measures import measures
from flowopt.optim.presets import SGD, Adagrad, Adam, AdamW, RMSprop
from flowopt.optim.thermal import LOL, AdaptiveLangevin, AdLaLa, Langevin

__all__ = [
    "LOL",
    "SGD",
    "AdLaLa",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdaptiveLangevin",
    "EnergyAdam",
    "EnergyGD",
    "EnergyMomentum",
    "FlowOptimizer",
    "Langevin",
    "LevenbergMarquardt",
    "RMSprop",
    "measures",
]
