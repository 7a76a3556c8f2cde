"""Settings of the study of controls."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

import flowopt as fo
from flowopt.errors import ConfigurationError
from studies.common.checks import check_known, check_least, check_once, check_positive
from studies.common.tasks import TASKS

Build = Callable[[Iterable[Tensor], float, bool], fo.optim.FlowOptimizer]

FULL_BATCH_GROWTH, MINIBATCH_GROWTH = 2.0, 1.1


def _energy_adam(params: Iterable[Tensor], rate: float, full: bool) -> fo.optim.FlowOptimizer:
    growth = FULL_BATCH_GROWTH if full else MINIBATCH_GROWTH
    # The first trial is that of Adam: growing to it by a tenth at each step would take 24 steps.
    return fo.optim.EnergyAdam(params, lr=rate, growth=growth, start=1.0)


def _slope(rate: float) -> fo.ExpectedSlope:
    return fo.ExpectedSlope(first_step=rate)


# Name → parameters, learning rate or first step, whether all rows are seen at every step.
METHODS: Mapping[str, Build] = {
    "adam": lambda p, rate, full: fo.optim.Adam(p, lr=rate, compile=True),
    "adamw": lambda p, rate, full: fo.optim.AdamW(p, lr=rate, compile=True),
    "energy_adam": _energy_adam,
    "slope_adam": lambda p, rate, full: fo.optim.Adam(p, control=_slope(rate), compile=True),
    "momentum": lambda p, rate, full: fo.optim.SGD(p, lr=rate, momentum=0.9, compile=True),
    "slope_momentum": lambda p, rate, full: fo.optim.SGD(
        p, momentum=0.9, control=_slope(rate), compile=True
    ),
}


@dataclass(frozen=True)
class Config:
    """What is trained, by which methods, at which rates.

    Attributes:
        data: A name of the tasks of `flowopt compare`: digits, iris, mnist, cifar10.
        methods: Names of `METHODS`.
        rates: Learning rates, or first steps of a control.
        seeds: How many; each gives weights, minibatches and random labels.
        epochs: Budget: the cost of so many epochs of one gradient per minibatch.
        batch: Rows of a minibatch; 0 for all rows at every step.
        hidden: Width of the hidden layer.
        random_labels: Share of the training rows whose label is drawn at random.
        rows: Training rows that are used, the first; all where 0.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigurationError: A value is out of range.
    """

    data: str = "digits"
    methods: tuple[str, ...] = ("adam", "adamw", "energy_adam", "slope_adam")
    rates: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    seeds: int = 3
    epochs: int = 100
    batch: int = 64
    hidden: int = 32
    random_labels: float = 0.0
    rows: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_known("data set", [self.data], TASKS)
        check_known("method", self.methods, METHODS)
        for name in ("methods", "rates"):
            if not getattr(self, name):
                raise ConfigurationError(f"{name} came empty, expected at least one")
            check_once(name.removesuffix("s"), getattr(self, name))
        check_positive(self, "rates")
        check_least(self, dict.fromkeys(("seeds", "epochs", "hidden"), 1))
        # 0 stands for all rows.
        check_least(self, {"batch": 0, "rows": 0})
        if not 0 <= self.random_labels <= 1:
            raise ConfigurationError(
                f"random_labels came as {self.random_labels}, expected a share from 0 to 1"
            )


PRESETS: Mapping[str, Config] = {
    "smoke": Config(rates=(1e-2, 1e-1), seeds=1, epochs=2),
    "quick": Config(seeds=2, epochs=30),
    "paper": Config(
        data="mnist",
        methods=("adam", "slope_adam", "momentum", "slope_momentum"),
        rates=(1e-4, 1e-3, 1e-2, 1e-1),
        seeds=5,
        epochs=2,
        batch=128,
        hidden=64,
    ),
}
DEFAULT_PRESET = "quick"
EXAMPLES = """  flowopt controls
  flowopt controls --set batch=0 epochs=500 rates=0.001,0.01,0.1,1
  flowopt controls --preset paper --set random_labels=0.2
  flowopt controls --preset paper --set data=cifar10 hidden=32"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def with_arguments(config: Config, arguments: argparse.Namespace) -> Config:
    """The configuration as it is."""
    return config
