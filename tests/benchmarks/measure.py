"""Fair timing: two functions in turn, best of several, so that drift of the machine cancels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """Times of ours and of a peer, seconds per call.

    Attributes:
        name: What was compared.
        ours: Best of our times.
        peer: Best of the peer's times.
        ratio: Median over rounds of ours / peer.
        bar: The ratio that is asked for.
    """

    name: str
    ours: float
    peer: float
    ratio: float
    bar: float

    @property
    def holds(self) -> bool:
        """Whether the ratio is within the bar."""
        return self.ratio <= self.bar


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], *, bar: float, rounds: int
) -> Ratio:
    """Runs ours and the peer in turn after one warm-up each."""
    timed = [partial(seconds, function) for function in (ours, peer)]
    return compare_times(name, *timed, bar=bar, rounds=rounds)


def compare_times(
    name: str, ours: Callable[[], float], peer: Callable[[], float], *, bar: float, rounds: int
) -> Ratio:
    """The same of functions that return the seconds that count."""
    pairs = []
    for number in range(rounds + 1):
        times = [function() for function in (ours, peer)]
        if number:
            pairs.append(times)
    mine, theirs = zip(*pairs, strict=True)
    return Ratio(name, min(mine), min(theirs), median(a / b for a, b in pairs), bar)


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin
