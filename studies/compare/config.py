"""Settings of the comparison, and its command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flowopt.errors import ConfigurationError
from studies.common.candidates import Candidate
from studies.common.checks import check_known, check_least, check_once, check_positive
from studies.common.tasks import TASKS

METHODS = (
    "sgd",
    "momentum",
    "nesterov",
    "rmsprop",
    "adam",
    "adamw",
    "heavy_ball:BAOAB",
    "langevin:BAOAB",
)


@dataclass(frozen=True)
class Config:
    """What is compared, on what, and for how long; None takes what `TASKS` says.

    Attributes:
        data: A name of `TASKS`.
        methods: Optimizers as `studies.common.candidates` reads them.
        seeds: How many seeds; each gives initial weights, minibatches and noise.
        epochs: Budget of every method: the cost of so many epochs of one gradient per minibatch.
        batch: Rows of a minibatch.
        hidden: Width of the hidden layer.
        points: Into how many parts the records divide a run.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigurationError: A value is out of range.
    """

    data: str = "digits"
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    epochs: float | None = None
    batch: int | None = None
    hidden: int | None = None
    points: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_known("data set", [self.data], TASKS)
        if not self.methods:
            raise ConfigurationError(
                "no method came, expected at least one: name some after --methods, such as adam sgd"
            )
        check_least(self, dict.fromkeys(("seeds", "batch", "hidden", "points"), 1))
        check_positive(self, "epochs")


@dataclass(frozen=True)
class Plan:
    """What decides about the results: a configuration with nothing left open.

    Attributes:
        methods: Labels of the candidates.
        texts: For each method the content of its file, None for those that are built in.
    """

    data: str
    methods: tuple[str, ...]
    texts: tuple[str | None, ...]
    seeds: int
    epochs: float
    batch: int
    hidden: int
    points: int
    device: str


def planned(config: Config, candidates: Sequence[Candidate]) -> Plan:
    """The plan of a configuration.

    Raises:
        ConfigurationError: Two methods have the same label.
    """
    labels = tuple(entry.label for entry in candidates)
    check_once("method", labels)
    task = TASKS[config.data]
    return Plan(
        data=config.data,
        methods=labels,
        texts=tuple(entry.text for entry in candidates),
        seeds=config.seeds,
        epochs=task.epochs if config.epochs is None else config.epochs,
        batch=task.batch if config.batch is None else config.batch,
        hidden=task.hidden if config.hidden is None else config.hidden,
        points=task.points if config.points is None else config.points,
        device=config.device,
    )


PRESETS: Mapping[str, Config] = {
    "smoke": Config(seeds=2, epochs=2, points=10),
    "quick": Config(),
    "paper": Config(data="mnist", seeds=5, epochs=20, points=40),
}
DEFAULT_PRESET = "quick"
EXAMPLES = """\
  flowopt compare
  flowopt compare --data mnist --seeds 2
  flowopt compare --methods adam sgd@0.1 heavy_ball:BAOAB heavy_ball:rk4@0.3 --epochs 10
  flowopt compare --flow my_flow.txt:OBA@0.2
  flowopt compare --problem rosenbrock
  flowopt compare --problem double_well --flow langevin"""


def package(arguments: argparse.Namespace) -> str:
    """Where the study lies that the arguments ask for: training, or error against cost."""
    return "studies.compare" if arguments.problem is None else "studies.compare.precision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this study takes."""
    parser.add_argument(
        "--problem",
        metavar="NAME",
        help="instead of training, measure error against cost: follow a flow on a problem of the "
        "registry (rosenbrock, quadratic, double_well ...) with every scheme that fits and with "
        "other libraries' solvers; the flow is that of --flow, a name or a file, else heavy_ball",
    )
    parser.add_argument(
        "--data", metavar="NAME", help=f"what to train on: {', '.join(TASKS)} (default: digits)"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        metavar="METHOD",
        help="a method (adam), a flow with a splitting word or scheme (heavy_ball:BAOAB, "
        "heavy_ball:rk4) or a text file (my_flow.txt:OBA); '@0.1' after it sets the step size, "
        f"of a method its learning rate (default: {' '.join(METHODS)}; see "
        "'flowopt list')",
    )
    parser.add_argument(
        "--flow",
        action="append",
        default=[],
        metavar="FILE",
        help="also train with the flow of a text file; may come several times",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help=f"how many seeds (default: {Config.seeds})"
    )
    parser.add_argument(
        "--epochs",
        type=float,
        metavar="N",
        help="budget of every method, in epochs of one gradient per minibatch (default: "
        + ", ".join(f"{task.epochs:g} for {name}" for name, task in TASKS.items())
        + ")",
    )


def with_arguments(config: Config, arguments: argparse.Namespace) -> Config:
    """The configuration that the arguments of `add_arguments` change."""
    names = ("data", "methods", "seeds", "epochs")
    given = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if "methods" in given:
        given["methods"] = tuple(given["methods"])
    config = replace(config, **given)
    # A file without ending is a file too where it is named as one.
    files = tuple(name if "/" in name else f"./{name}" for name in arguments.flow)
    return replace(config, methods=(*config.methods, *files)) if files else config
