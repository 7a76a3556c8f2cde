"""Settings of the basins study, and its command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flowopt.errors import ConfigurationError
from studies.basins.author import RECORDS
from studies.basins.author_networks import MOST_STEPS, TASKS
from studies.common.checks import check_known, check_least, check_once

PARTS = ("identities", "table", "maps", "sweeps", "rates", "flows", "networks")
SAMPLINGS = ("grid", "random")
METHODS = (
    "gd@0.1",
    "momentum@0.1",
    "awb@0.1",
    "adam@0.1",
    "er@0.1",
    "gd_em@0.1",
    "momentum_em@0.1",
    "lc_gd@0.1",
    "lc_gd_moderate@0.1",
)
# A boundary is looked at over up to 16 pixels.
LEAST = {
    **dict.fromkeys(("starts", "near", "trapped", "flowing", "replicas", "network_steps"), 1),
    "network_batch": 0,
    **dict.fromkeys(("pixels", "swept_pixels"), 20),
}


@dataclass(frozen=True)
class Config:
    """What is computed, and how finely.

    Attributes:
        parts: Of the study, as `PARTS` lists them.
        records: Problems whose records by the author are compared with.
        starts: Random starts of that comparison.
        problems: Of the maps, names of the registry.
        methods: Of the maps, as `methods.method` reads them.
        pixels: Starts along each side of a map.
        sampling: Where they are: "grid", or "random" for as many uniformly distributed ones, of
            which there is no picture and nothing to say about shapes.
        axes: The two parameters that a map varies; all others are zero.
        near: Starts near each minimum, for leave rates.
        swept: Problems on which single numbers are varied.
        swept_pixels: Starts along each side of the maps of these.
        trapped: Random starts of true flows, of which those below the lowest saddle count.
        networks: Data sets of the small networks.
        network_methods: Of these, as `methods.method` reads them; those of the author's records
            where none is given.
        replicas: Networks of each ensemble, at most the author's number.
        network_steps: After which a network counts as not converged.
        network_batch: Rows of the data that a network sees in a step; 0 for all.
        network_shared: Whether all networks see the same rows, or each its own.
        flowing: Random starts of the gradient flow on a problem with non-strict saddles.
        seed: Of everything random.
        device: Only "cpu".

    Raises:
        ConfigurationError: A value is out of range.
    """

    parts: tuple[str, ...] = PARTS
    records: tuple[str, ...] = (
        *("poly_two", "poly_three", "poly_four", "poly_five", "cloche", "rat_two"),
    )
    starts: int = 10_000
    problems: tuple[str, ...] = ("poly_two", "poly_three")
    methods: tuple[str, ...] = METHODS
    pixels: int = 160
    sampling: str = "grid"
    axes: tuple[int, ...] = (0, 1)
    near: int = 200
    swept: tuple[str, ...] = ("poly_two", "poly_three")
    swept_pixels: int = 80
    trapped: int = 4000
    flowing: int = 10_000
    networks: tuple[str, ...] = tuple(TASKS)
    network_methods: tuple[str, ...] = ()
    replicas: int = 100
    network_steps: int = MOST_STEPS
    network_batch: int = 0
    network_shared: bool = True
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        known = {
            "parts": PARTS,
            "records": tuple({record.problem: None for record in RECORDS}),
            "networks": tuple(TASKS),
        }
        # What a part goes through must not be empty where the part is made.
        part_of = {"records": "table", "networks": "networks"}
        for field, names in known.items():
            made = field == "parts" or part_of[field] in self.parts
            if made and not getattr(self, field):
                raise ConfigurationError(f"{field} came empty, expected some of {', '.join(names)}")
            check_known(field.removesuffix("s"), getattr(self, field), names)
        for field in (*known, "problems", "methods", "swept", "network_methods"):
            check_once(field.removesuffix("s").replace("_", " "), getattr(self, field))
        check_least(self, LEAST)
        if len(self.axes) != 2 or self.axes[0] == self.axes[1] or min(self.axes) < 0:
            raise ConfigurationError(
                f"axes came as {self.axes}, expected two different parameters, such as 0,1"
            )
        check_known("sampling", [self.sampling], SAMPLINGS)
        if self.device != "cpu":
            raise ConfigurationError(f"device came as {self.device!r}, this study runs on cpu")


PRESETS: Mapping[str, Config] = {
    "smoke": Config(
        records=("poly_two",),
        starts=1000,
        problems=("poly_two",),
        methods=("gd@0.1", "awb@0.1", "adam@0.1", "lc_gd_moderate@0.1"),
        pixels=80,
        near=100,
        parts=("table", "maps", "flows", "networks"),
        trapped=1000,
        flowing=200,
        networks=("squares",),
        network_methods=("momentum@0.1",),
        network_steps=50,
    ),
    "quick": Config(networks=("squares",), replicas=200),
    "paper": Config(
        problems=("poly_two", "poly_three", "poly_four", "poly_five", "cloche", "rat_two"),
        pixels=480,
        near=2000,
        swept_pixels=240,
        trapped=100_000,
        flowing=20_000,
        replicas=10_000,
    ),
}
DEFAULT_PRESET = "quick"
EXAMPLES = """\
  flowopt basins --preset smoke
  flowopt basins
  flowopt basins --problem rosenbrock --methods gd@0.0005 adam@0.1 heavy_ball:BAOAB@0.02
  flowopt basins --problem poly_three --methods adam@0.1 adam:TMVA@0.1+lyapunov"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this study takes."""
    parser.add_argument(
        "--problem",
        metavar="NAME",
        help="only maps, of this problem of the registry (see 'flowopt list')",
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        metavar="METHOD",
        help="methods of the maps: gd, momentum, awb, adam, gd_em, lc_gd ... of the study, or what "
        "'flowopt compare' takes; '@0.1' after it sets the step size, '+lyapunov' or '+error' "
        f"a control (default: {' '.join(METHODS)})",
    )


def with_arguments(config: Config, arguments: argparse.Namespace) -> Config:
    """The configuration that the arguments of `add_arguments` change."""
    if arguments.problem is not None:
        config = replace(config, parts=("maps",), problems=(arguments.problem,))
    if arguments.methods is not None:
        if not arguments.methods:
            raise ConfigurationError("no method came, expected at least one after --methods")
        config = replace(config, methods=tuple(arguments.methods))
    return config
