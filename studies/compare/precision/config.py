"""Settings of the work-precision comparison; its command line is that of `compare`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flowopt.errors import ConfigurationError
from flowopt.registry import PROBLEMS
from studies.common.checks import check_known, check_least, check_positive


@dataclass(frozen=True)
class Task:
    """How long a flow is followed on a problem, and the steps of the coarsest run.

    Attributes:
        time: At which errors are taken.
        steps: Of the coarsest run.
    """

    time: float
    steps: int


# Where the curvature is large, coarser runs than these diverge.
TASKS: Mapping[str, Task] = {"rosenbrock": Task(time=1.0, steps=40)}
USUAL = Task(time=2.0, steps=8)


@dataclass(frozen=True)
class Config:
    """What is compared, and how finely; None takes what `TASKS` says.

    Attributes:
        problem: A name of the registry.
        flow: A flow of the registry, or a text file.
        time: At which errors against the true flow are taken.
        levels: How many step sizes, each half of the one before.
        steps: Of the coarsest run.
        starts: How many trajectories of a flow without noise.
        paths: How many of a flow with noise, each with a Brownian path of its own.
        temperature: Of flows that have one.
        chains: Of the stationary error.
        duration: Of the stationary error, after a burn-in of a quarter of it.
        seed: Of starts, paths and noise.
        device: Only "cpu".

    Raises:
        ConfigurationError: A value is out of range.
    """

    problem: str = "rosenbrock"
    flow: str = "heavy_ball"
    time: float | None = None
    levels: int = 6
    steps: int | None = None
    starts: int = 8
    paths: int = 400
    temperature: float = 0.5
    chains: int = 500
    duration: float = 50.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_known("problem", [self.problem], PROBLEMS)
        one_each = dict.fromkeys(("steps", "starts", "paths", "chains"), 1)
        check_least(self, {"levels": 3, **one_each, "seed": 0})
        check_positive(self, "time", "temperature", "duration")
        if self.device != "cpu":
            raise ConfigurationError(f"device came as {self.device!r}, expected 'cpu': it is timed")


PRESETS: Mapping[str, Config] = {
    "smoke": Config(levels=4, starts=3, paths=100, chains=50, duration=20.0),
    "quick": Config(),
    "paper": Config(levels=9, starts=50, paths=4000, chains=2000, duration=1000.0),
}


def planned(config: Config) -> Config:
    """The configuration with nothing left open."""
    task = TASKS.get(config.problem, USUAL)
    return replace(
        config,
        time=task.time if config.time is None else config.time,
        steps=task.steps if config.steps is None else config.steps,
    )


def with_arguments(config: Config, arguments: argparse.Namespace) -> Config:
    """The configuration that `--problem` and `--flow` change.

    Raises:
        ConfigurationError: An option of training came too.
    """
    for name in ("data", "methods", "seeds", "epochs"):
        if getattr(arguments, name) is not None:
            raise ConfigurationError(f"--{name} is about training, which --problem leaves out")
    if len(arguments.flow) > 1:
        raise ConfigurationError(f"one --flow at a time with --problem, got {arguments.flow}")
    flow = arguments.flow[0] if arguments.flow else config.flow
    return replace(config, problem=arguments.problem, flow=flow)
