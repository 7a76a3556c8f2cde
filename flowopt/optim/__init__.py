"""Flows as torch optimizers."""

from flowopt.optim.flow_optimizer import FlowOptimizer
from flowopt.optim.presets import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "FlowOptimizer", "RMSprop"]
