"""What the author's own runs gave: percent of random starts that end in each class.

Source: B. Bensaid, result files in the history of the public repository NN_Levenberg_Marquardt
(2021 to 2022), one file per problem and method, starts uniform on a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studies.basins.methods import MOST_STEPS

Point = tuple[float, float]
# Input and target of each datum.
Data = tuple[Point, ...]
FOUR: tuple[Point, ...] = ((-2, 1), (2, -1), (0, -1), (0, 1))
GOLDEN, WELL = (1 + math.sqrt(5)) / 2, math.sqrt(2 * math.log(1.5))
FIVE: tuple[Point, ...] = ((2, 1), (0, -1), (-2, 3), (0, 3), (-4, 3), (4, -1), (-2, 1), (2, -1))

TO_1E_7 = "a mean of 2047 iterations belongs to runs to |g| = 1e-7, as ours are."
UNSTABLE = (
    "h times the curvature of every minimum is 2.09, so all are unstable under it: what ends there "
    "does so by chance, the less often the smaller |g| has to be. Those that keep jumping about "
    "count as lost in this file."
)
ROUNDING = (
    "at minima of loss 4 and 8 a decrease of the energy drowns in its rounding where |g| is about "
    "1e-7, and steps are rejected for ever. The author's arithmetic, instrumented, is noisier: his "
    "runs do so at 1e-5, in few of the starts."
)
NO_GUARD = (
    "where |g| is huge, the second probe is so near that it rounds to the start. Its error of 0 "
    "makes the next step infinite: the rule has no guard against that, here as in his code."
)
WALL = (
    "compared with the cross-entropy as his code has it. Beside the infinite wall a probe goes so "
    "far that an output underflows to 0, and that loss divides by it."
)
ROUNDED_TO_ONE = (
    "compared with the cross-entropy as his code has it, with a term (1 − y)/(1 − σ) for the "
    "target y = 1. That is 0/0 where σ rounds to 1, which is the minimum: runs that come to it "
    "either step on such a point before |g| is 1e-7, and end as not a number, or do not."
)
CRAWLING = (
    "along degenerate minima and non-strict saddles convergence is slower than any exponential, so "
    "this share is that of the patience."
)


def _cross_entropy(theta: Tensor, neuron: Callable[[Tensor], Tensor], data: Data) -> Tensor:
    """With both terms for every target: not a number where an output rounds to 0 or 1."""
    weight, bias = theta.unbind(-1)
    loss = torch.zeros_like(bias)
    for x, y in data:
        output = neuron(weight * x + bias)
        loss = loss - (y * torch.log(output) + (1.0 - y) * torch.log(1.0 - output)) / len(data)
    return loss


def _rational(theta: Tensor) -> Tensor:
    """Of the rational neuron."""
    return _cross_entropy(
        theta,
        lambda z: (z * z + 1.0) / (z * z - 2.0 * z + 2.0) / GOLDEN**2,
        ((0.0, 1.0), (1.0, 1.0)),
    )


def _bell(theta: Tensor) -> Tensor:
    """Of the bell-shaped neuron."""
    data = ((0.0, 1.0), (1.0, 0.0), (2.0, 1.0))
    return _cross_entropy(theta, lambda z: torch.exp(-0.5 * z * z), data)


@dataclass(frozen=True)
class Record:
    """Percent of the starts of one file.

    Attributes:
        problem: In the registry.
        method: In `methods.METHODS`, with its step size.
        shares: Percent per point.
        lost: Percent that diverged.
        unfinished: Percent that did not converge.
        elsewhere: Percent that converged to no listed point; NaN, here and above, where not known.
        points: The classes.
        starts: How many.
        half_width: Of the square.
        tolerance: Norm of the gradient at which the file's runs ended, where not the method's.
        most_steps: After which a run counts as not converged.
        together: Whether the file calls what did not converge lost.
        loss: The problem's loss as the author's code has it, where its rounding matters.
        note: What is to know of it.
        differs: Why a cell differs from ours by more than chance, where one does.
    """

    problem: str
    method: str
    shares: tuple[float, ...]
    lost: float = 0.0
    unfinished: float = 0.0
    elsewhere: float = math.nan
    points: tuple[Point, ...] = FOUR
    starts: int = 10_000
    half_width: float = 3.0
    tolerance: float | None = None
    most_steps: int = MOST_STEPS
    together: bool = False
    loss: Callable[[Tensor], Tensor] | None = None
    note: str = ""
    differs: str = ""


RECORDS: tuple[Record, ...] = (
    Record("poly_two", "gd@0.1", (20.78, 20.48, 18.92, 18.05), lost=21.77),
    Record("poly_two", "gd@0.01", (21.62, 21.03, 29.04, 28.31), tolerance=1e-7, note=TO_1E_7),
    Record("poly_two", "momentum@0.1", (14.70, 14.04, 35.68, 35.58)),
    Record("poly_two", "momentum_euler@0.1", (11.25, 10.33, 21.80, 21.00), lost=35.62),
    Record("poly_two", "awb@0.1", (15.10, 14.81, 35.39, 34.70)),
    Record("poly_two", "adam@0.1", (21.44, 21.14, 28.99, 28.43)),
    Record("poly_two", "er@0.1", (21.38, 20.87, 29.27, 28.48)),
    Record("poly_two", "lm_base@0.1", (20.45, 19.85, 30.30, 29.40)),
    Record("poly_two", "gd_em@0.1", (21.63, 21.14, 29.07, 28.16)),
    Record("poly_two", "pgd@0.1", (21.39, 20.73, 29.25, 28.62)),
    Record("poly_two", "momentum_em@0.1", (14.49, 13.78, 36.02, 35.71)),
    Record("poly_three", "gd@0.1", (0.0, 0.0, 0.0, 0.0), lost=100.0),
    Record("poly_three", "gd@0.001", (17.99, 21.94, 17.03, 27.19), lost=15.85),
    Record("poly_three", "momentum@0.1", (6.15, 8.35, 5.80, 11.80), lost=67.89),
    Record("poly_three", "awb@0.1", (14.53, 13.72, 21.94, 49.80)),
    Record("poly_three", "adam@0.1", (20.19, 21.24, 28.87, 29.65)),
    Record("poly_three", "er@0.1", (21.18, 21.16, 28.62, 29.04)),
    Record("poly_three", "lm_base@0.1", (16.76, 15.94, 35.92, 0.0), lost=31.4, together=True),
    Record(
        "poly_three",
        "momentum_em@0.1",
        (20.79, 19.53, 44.03, 15.24),
        lost=0.06,
        unfinished=0.35,
        differs=ROUNDING,
    ),
    Record("poly_three", "lc_gd_restart@0.1", (21.57, 21.55, 28.32, 28.56)),
    Record(
        "poly_four",
        "gd@0.1",
        (0.07, 0.01, 0.0, 0.0),
        lost=99.92,
        tolerance=1e-7,
        together=True,
        note=UNSTABLE,
    ),
    Record("poly_four", "momentum@0.1", (8.44, 8.14, 10.37, 9.88), lost=63.17),
    Record("poly_four", "adam@0.1", (20.36, 20.04, 29.94, 29.60), unfinished=0.06),
    Record(
        "poly_five",
        "awb@0.1",
        (12.35, 53.38, 0.72, 8.63, 4.28, 0.12, 8.07, 0.0),
        unfinished=12.45,
        points=FIVE,
        differs=CRAWLING,
    ),
    Record("poly_four", "er@0.1", (21.51, 20.89, 29.19, 28.41)),
    Record("poly_five", "gd@0.1", (), lost=99.81, points=()),
    Record("poly_five", "momentum@0.1", (), lost=99.14, points=()),
    Record(
        "poly_five",
        "lc_gd@0.1",
        (0.0, 82.82, 0.0, 4.73, 4.86, 7.56, 0.03, 0.0),
        points=FIVE,
    ),
    Record(
        "poly_five",
        "er@0.1",
        (16.6, 3.7, 3.0),
        lost=55.0,
        unfinished=17.6,
        points=((0, -1), (-2, 1), (2, -1)),
        starts=28_000,
        note=NO_GUARD,
        half_width=5.0,
    ),
    Record(
        "cloche",
        "er@0.1",
        (50.75, 49.07),
        lost=0.18,
        points=((0, WELL), (0, -WELL)),
        starts=4445,
        half_width=2.0,
        loss=_bell,
        note=WALL,
    ),
    Record(
        "rat_two",
        "er@0.1",
        (67.6,),
        lost=math.nan,
        unfinished=math.nan,
        elsewhere=26.5,
        points=((0, GOLDEN),),
        starts=4445,
        half_width=2.0,
    ),
    Record(
        "rat_two",
        "adam@0.1",
        (35.4,),
        lost=math.nan,
        unfinished=math.nan,
        points=((0, GOLDEN),),
        starts=4445,
        half_width=2.0,
        tolerance=1e-7,
        loss=_rational,
        note=ROUNDED_TO_ONE,
    ),
)


@dataclass(frozen=True)
class Change:
    """A record whose runs are made once more, otherwise, to see what a share hangs on.

    Attributes:
        words: What is otherwise.
        record: With that.
    """

    words: str
    record: Record


def _record(problem: str, method: str) -> Record:
    (found,) = (r for r in RECORDS if (r.problem, r.method) == (problem, method))
    return found


def _to(problem: str, method: str, *tolerances: float) -> tuple[Change, ...]:
    """Runs that end at other norms of the gradient."""
    record = _record(problem, method)
    return tuple(Change(f"to {t:.0e}", replace(record, tolerance=t)) for t in tolerances)


CHANGES: tuple[Change, ...] = (
    *_to("poly_two", "gd@0.01", 1e-4),
    *_to("poly_three", "momentum_em@0.1", 1e-6, 1e-7),
    *_to("poly_four", "gd@0.1", 1e-4, 1e-5),
    *_to("poly_five", "awb@0.1", 1e-4),
    Change("40000 steps", replace(_record("poly_five", "awb@0.1"), most_steps=40_000)),
    Change("usual loss", replace(_record("cloche", "er@0.1"), loss=None)),
    Change("usual loss", replace(_record("rat_two", "adam@0.1"), loss=None)),
)
