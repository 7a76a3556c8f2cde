"""Fair timing: two functions in turn, several rounds, so that drift of the machine cancels."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Protocol

import torch


@dataclass(frozen=True)
class Ratio:
    """Times of ours and of a peer, seconds per call.

    Attributes:
        name: What was compared.
        ours: Best of our times.
        peer: Best of the peer's times.
        ratio: Median over rounds of ours / peer.
        least: Smallest ratio of a round.
        most: Largest ratio of a round.
        bar: The ratio that is asked for.
    """

    name: str
    ours: float
    peer: float
    ratio: float
    least: float
    most: float
    bar: float

    @property
    def holds(self) -> bool:
        """Whether the ratio is within the bar."""
        return self.ratio <= self.bar

    def __str__(self) -> str:
        """The row of the table in docs/benchmarks.md."""
        missed = "" if self.holds else " (missed)"
        return (
            f"| {self.name} | {self.ours * 1e3:.1f} | {self.peer * 1e3:.1f} "
            f"| {self.ratio:.2f}{missed} | {self.least:.2f} – {self.most:.2f} | {self.bar:.2f} |"
        )


HEAD = """\
| comparison | ours / ms | other / ms | ratio | of all rounds | bar |
|---|--:|--:|--:|--:|--:|"""


class Measured(Protocol):
    """What can be measured by its name."""

    @property
    def name(self) -> str:
        """What is compared."""
        ...

    def measure(self, rounds: int) -> list[Ratio]:
        """One row or several."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Ours and a peer in turn after one warm-up each.

    Attributes:
        name: What is compared.
        ours: Returns the seconds that count.
        peer: The same of another.
        bar: The ratio that is asked for.
    """

    name: str
    ours: Callable[[], float]
    peer: Callable[[], float]
    bar: float

    def measure(self, rounds: int) -> list[Ratio]:
        """One row."""
        pairs = [[function() for function in (self.ours, self.peer)] for _ in range(rounds + 1)]
        return [ratio_of(self.name, pairs[1:], self.bar)]


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], *, bar: float
) -> Comparison:
    """Two whole calls."""
    return Comparison(name, partial(seconds, ours), partial(seconds, peer), bar)


def ratio_of(name: str, pairs: list[list[float]], bar: float) -> Ratio:
    """The row of times of ours and the peer, one pair per round."""
    mine, theirs = zip(*pairs, strict=True)
    ratios = [a / b for a, b in pairs]
    return Ratio(name, min(mine), min(theirs), median(ratios), min(ratios), max(ratios), bar)


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def environment() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
