"""The author's small networks: their data, their first weights, and how his runs ended.

Source: B. Bensaid, public repositories NN_Levenberg_Marquardt (names and last lines of its result
files, 2022) and COptimizers (2024), read for facts. The data are known to the last digit: the loss
of networks that have died, 0.135201 in his files, comes out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

Data = tuple[Tensor, Tensor]
# Of the author's runs.
MOST_STEPS = 200_000


class Ends(NamedTuple):
    """Percent of the author's networks, by how their runs ended; they sum to 100.

    Attributes:
        converged: With a gradient below the tolerance.
        lost: With a gradient above 1000 or not finite.
        unfinished: After the last step.
        noisy: Given up where his arithmetic, which estimates its own rounding, saw no significant
            digit in the gradient. In plain float64 these go on, to any of the other ends.
    """

    converged: float
    lost: float = 0.0
    unfinished: float = 0.0
    noisy: float = 0.0


@dataclass(frozen=True)
class Task:
    """A network, its data and where it begins.

    Attributes:
        layers: Widths, inputs first.
        activation: Between the layers.
        last: After the last one, if anything.
        data: Inputs and targets of all rows; half of them are trained on.
        half_width: Weights and biases are uniform up to it; None for normal weights of variance
            1/inputs and biases of zero.
        tolerance: Norm of the gradient that counts as converged.
        networks: Of the author.
        records: Method → how his runs ended.
        note: What is to know of the records.
    """

    layers: tuple[int, ...]
    activation: type[nn.Module]
    last: type[nn.Module] | None
    data: Callable[[], Data]
    half_width: float | None
    tolerance: float
    networks: int
    records: Mapping[str, Ends] = field(repr=False)
    note: str


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance, mean over rows."""
    return 0.5 * ((outputs - targets) ** 2).sum(-1).mean()


def training_rows(rows: int) -> list[int]:
    """Half of the rows, in the order in which the author drew them.

    The minimal standard generator from its seed 1, a whole number below `rows` by division; a row
    that came before is drawn again.

    Reference:
        Park & Miller 1988, Communications of the ACM 31, 1192.
    """
    modulus, state = 2**31 - 1, 1
    width = (modulus - 2) // rows
    chosen: dict[int, None] = {}
    while len(chosen) < rows // 2:
        state = 16807 * state % modulus
        if (row := (state - 1) // width) < rows:
            chosen[row] = None
    return list(chosen)


def training_data(task: Task) -> Data:
    """Inputs and targets of the rows that are trained on."""
    inputs, targets = task.data()
    rows = training_rows(len(inputs))
    return inputs[rows], targets[rows]


def _squares() -> Data:
    """(x₁², x₂²) on a grid of 10 × 10 points of [−1, 1]²."""
    line = torch.linspace(-1.0, 1.0, 10, dtype=torch.float64)
    inputs = torch.cartesian_prod(line, line)
    return inputs, inputs**2


def _wave() -> Data:
    """A square wave of period 1 between −1 and 1, at 100 points of [−1, 1]."""
    inputs = torch.linspace(-1.0, 1.0, 100, dtype=torch.float64)[:, None]
    return inputs, 2.0 * (2.0 * inputs.floor() - (2.0 * inputs).floor()) + 1.0


def _spirals() -> Data:
    """Two arms of one turn, 100 points each, at distances from π to 5π."""
    angle = torch.linspace(0.0, 2.0 * math.pi, 100, dtype=torch.float64)
    arm = (2.0 * angle + math.pi)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    arms = torch.arange(2, dtype=torch.float64).repeat_interleave(len(arm))
    return torch.cat([arm, -arm]), arms[:, None]


TASKS: Mapping[str, Task] = {
    "squares": Task(
        (2, 15, 2),
        nn.ReLU,
        None,
        _squares,
        100.0,
        1e-7,
        10_000,
        {
            "gd@0.001": Ends(39.33, 59.86, 0.81),
            "momentum@0.1": Ends(6.08, 93.92),
            "momentum@0.01": Ends(24.29, 74.16, 1.55),
            "momentum@0.001": Ends(93.62, 0.0, 6.38),
            "momentum_em@0.1": Ends(99.64, 0.14, 0.14, 0.08),
        },
        "the files of gd and of momentum at 0.001 do not say their learning rate. Their numbers of "
        "steps do: a network whose neurons have all died has only its last biases to learn, which "
        "takes ln(10⁹)/lr steps to 1e-7, and in these files took 20000 to 24000.",
    ),
    "square_wave": Task(
        (1, 15, 1),
        nn.Sigmoid,
        None,
        _wave,
        100.0,
        1e-3,
        10_000,
        {
            "gd@0.1": Ends(76.10, 0.0, 3.97, 19.93),
            "gd@0.01": Ends(13.41, 0.0, 85.81, 0.78),
            "momentum@0.01": Ends(16.36, 0.0, 83.64),
            "gd_em@0.1": Ends(77.72, 0.0, 6.25, 16.03),
            "er@0.01": Ends(79.72, 0.0, 20.28),
            "momentum_em@0.1": Ends(98.43, 0.0, 1.54, 0.03),
            "lc_gd@0.1": Ends(99.85, 0.0, 0.01, 0.14),
        },
        "most networks without control take more than 20000 steps, so that fewer converge in fewer "
        "steps.",
    ),
    "two_spirals": Task(
        (2, 12, 12, 12, 1),
        nn.Tanh,
        nn.Sigmoid,
        _spirals,
        None,
        1e-2,
        1000,
        {
            "gd@0.1": Ends(26.1, 0.0, 0.0, 73.9),
            "momentum@0.01": Ends(100.0),
            "er@0.01": Ends(62.1, 0.0, 0.0, 37.9),
            "momentum_em@0.1": Ends(93.1, 0.0, 0.0, 6.9),
            "lc_gd@0.1": Ends(100.0),
            "adam@0.001": Ends(100.0),
        },
        "a gradient of 1e-2 is no accuracy. By gradient descent at 0.1 a quarter of the networks "
        "have it within 300 steps, at a loss of 0.123, where the mean of the targets alone gives "
        "0.125: these are the 26 % of the record. All others were given up for noise.",
    ),
}
