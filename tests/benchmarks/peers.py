"""Speed of native kernels over other libraries, in one run: `python -m tests.benchmarks.peers`.

Whole `integrate` calls of objects that were used before, float64, the user's torch loss. Ours and
the peers run in turn, best of several; `nox -s peers` makes the environment.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import flowopt as fo
from tests.benchmarks import rivals, spirals
from tests.benchmarks.eager import TwoParameters
from tests.benchmarks.kernels import TRAJECTORIES, Network
from tests.benchmarks.measure import environment, seconds
from tests.benchmarks.rivals import Run

THREADS = 2
# No trajectory of the ensemble diverges with it, so that all do the same work.
STEP_SIZE = 0.01
# Never met: trajectories that stop early would flatter us.
UNREACHED = 1e-14
DURATION, TOLERANCE = 60.0, 1e-8
REPLICAS, NETWORK_STEPS = 10_000, 100
SPIRAL_REPLICAS = 1000
MAP, MAP_STEP, MAP_SECONDS = 1000, 0.1, 15.0
# Seconds that the rounds of one row may take; two rounds at least.
PATIENCE = 10.0


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: What is done.
        peer: By whom else.
        ours: Our best time, seconds.
        theirs: The peer's best time, seconds.
        faster: theirs / ours.
        bar: How many times faster we have to be.
    """

    work: str
    peer: str
    ours: float
    theirs: float
    faster: float
    bar: float

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.faster >= self.bar


def race(work: str, ours: Run, peers: Mapping[str, tuple[Run, float]], rounds: int) -> list[Row]:
    """Ours and all peers in turn after a warm-up; the best time of each.

    Args:
        work: Name of the rows.
        ours: A whole call.
        peers: Name → (a whole call, bar).
        rounds: At most so many.
    """
    runners = {"": ours, **{name: run for name, (run, _) in peers.items()}}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():
        run()
    begin = time.perf_counter()
    for number in range(rounds):
        if number > 1 and time.perf_counter() - begin > PATIENCE:
            break
        for name, run in runners.items():
            times[name].append(seconds(run))
    best = {name: min(found) for name, found in times.items()}
    rows = [
        Row(work, name, best[""], best[name], best[name] / best[""], bar)
        for name, (_, bar) in peers.items()
    ]
    for row in rows:
        print(line(row), flush=True)
    return rows


def starts(count: int, dim: int) -> Tensor:
    """Uniform on [-2, 2] for two parameters, [-1/2, 1/2] for a network."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(count, dim, generator=generator, dtype=torch.float64) - 0.5
    return 4.0 * numbers if dim == 2 else numbers


def ensemble(rounds: int) -> Iterator[list[Row]]:
    """Two parameters, all trajectories."""
    start, two, descent, word = starts(TRAJECTORIES, 2), TwoParameters(), *_descent()
    adam = fo.classic.adam(lr=STEP_SIZE)
    thermal = fo.flows.langevin(friction=1.0, temperature=0.1)
    run = partial(fo.integrate, problem=two, start=start, compile=True)
    settled = fo.stop.gradient(UNREACHED)
    for steps in (300, 3000):
        euler = rivals.diffrax_euler(start, STEP_SIZE, steps)
        other = rivals.torchdiffeq_euler(start, STEP_SIZE * steps, options={"step_size": STEP_SIZE})
        for kind, stop, bars in (("status", None, (2, 8)), ("stopping", settled, (1.6, 6))):
            yield race(
                f"gradient descent with {kind}, {steps} steps",
                partial(run, descent, word, step_size=STEP_SIZE, steps=steps, stop=stop),
                {"diffrax Euler": (euler, bars[0]), "torchdiffeq Euler": (other, bars[1])},
                rounds,
            )
        yield race(
            f"Adam, {steps} steps",
            partial(run, adam.flow, adam.scheme, step_size=float(adam.step_size), steps=steps),
            {"jax": (rivals.jax_adam(start, STEP_SIZE, steps), 2)},
            rounds,
        )
    yield race(
        "Langevin BAOAB, 300 steps",
        partial(run, thermal, fo.Splitting("BAOAB"), step_size=STEP_SIZE, steps=300),
        {"torch's normal numbers alone": (rivals.torch_normals(TRAJECTORIES, 300), 3)},
        rounds,
    )


def adaptive(rounds: int) -> Iterator[list[Row]]:
    """Dormand–Prince with error control; heyoka's Taylor series on one thread."""
    start = starts(TRAJECTORIES, 2)
    ours = partial(
        fo.integrate,
        _descent()[0],
        fo.RungeKutta("dopri5"),
        TwoParameters(),
        start,
        control=fo.ErrorControl(rtol=TOLERANCE, atol=TOLERANCE),
        duration=DURATION,
        compile=True,
    )
    place = (start, DURATION)
    tolerances = {"rtol": TOLERANCE, "atol": TOLERANCE}
    yield race(
        f"Dormand–Prince {TOLERANCE:g} to T = {DURATION:g}",
        ours,
        {
            "diffrax": (rivals.diffrax_adaptive(*place, TOLERANCE), 10),
            "torchode": (rivals.torchode_adaptive(*place, TOLERANCE), 12),
            "torchdiffeq": (rivals.torchdiffeq_run(*place, "dopri5", **tolerances), 16),
        },
        rounds,
    )
    torch.set_num_threads(1)
    yield race(
        f"{TOLERANCE:g} to T = {DURATION:g}, one thread",
        ours,
        {"heyoka, batches": (rivals.heyoka_adaptive(*place, TOLERANCE), 1.5)},
        rounds,
    )
    torch.set_num_threads(THREADS)


def replicas(rounds: int) -> Iterator[list[Row]]:
    """A small network, many replicas; the peers compute the gradient and do not step."""
    network = Network()
    start = starts(REPLICAS, network.dim)
    adam = fo.classic.adam(lr=STEP_SIZE)
    gradients = partial(rivals.torch_gradients, network.loss, start, NETWORK_STEPS)
    peers = {"torch, gradient alone": (gradients(compiled=False), 8)}
    if shutil.which("g++") or shutil.which("clang++"):
        peers["torch.compile, gradient alone"] = (gradients(compiled=True), 8)
    optimizers = {
        "gradient descent": (*_descent(), STEP_SIZE),
        "Adam": (adam.flow, adam.scheme, float(adam.step_size)),
    }
    for name, (flow, scheme, step_size) in optimizers.items():
        ours = partial(fo.integrate, flow, scheme, network, start, compile=True)
        yield race(
            f"{name}, 1–8–1 network, {REPLICAS} replicas, {NETWORK_STEPS} steps",
            partial(ours, step_size=step_size, steps=NETWORK_STEPS),
            peers,
            rounds,
        )


def rows(rounds: int) -> Iterator[list[Row]]:
    """The two-spiral network by a loop over its data; the peers compute the gradient alone."""
    network = spirals.problem()
    start = spirals.starts(network, SPIRAL_REPLICAS)
    adam = fo.classic.adam(lr=STEP_SIZE)
    work = f"two-spiral network, {SPIRAL_REPLICAS} replicas"
    peers = {
        "torch.func.vmap(grad), gradient alone": (spirals.vmap_gradients, 5),
        "torch by hand, gradient alone": (spirals.batched_gradients, 5),
    }
    optimizers = {
        "gradient descent": (*_descent(), STEP_SIZE),
        "Adam": (adam.flow, adam.scheme, float(adam.step_size)),
    }
    for name, (flow, scheme, step_size) in optimizers.items():
        ours = partial(fo.integrate, flow, scheme, start=start, step_size=step_size, compile=True)
        run = partial(ours, problem=network, steps=NETWORK_STEPS)
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.dict(os.environ, FLOWOPT_CACHE=folder),
        ):
            short = partial(ours, problem=spirals.problem(), steps=1)
            first, again = seconds(short), seconds(short)
        built = Row(f"{name}, {work}", "trace and build, 3 s allowed", first - again, 3.0, 0.0, 1)
        built = replace(built, faster=built.theirs / built.ours)
        print(line(built), flush=True)
        yield [built]
        yield race(
            f"{name}, {work}, {NETWORK_STEPS} steps",
            run,
            {n: (make(network, start, NETWORK_STEPS), bar) for n, (make, bar) in peers.items()},
            rounds,
        )


def scaling(rounds: int) -> Iterator[list[Row]]:
    """Threads, and cost per step of a trajectory by their number."""
    two, (descent, word) = TwoParameters(), _descent()

    def ours(count: int, steps: int) -> Run:
        start = starts(count, 2)
        return partial(
            fo.integrate,
            descent,
            word,
            two,
            start,
            step_size=STEP_SIZE,
            steps=steps,
            compile=True,
        )

    def with_threads(threads: int) -> None:
        torch.set_num_threads(threads)
        run()

    run = ours(TRAJECTORIES, 10_000)
    yield race(
        "gradient descent, 10000 steps, two threads",
        partial(with_threads, 2),
        {"ours, one thread": (partial(with_threads, 1), 1.8)},
        rounds,
    )
    torch.set_num_threads(THREADS)
    per_step = {}
    for count in (100, 1000, 10_000, 100_000, 1_000_000, 10_000_000):
        steps = 1000 if count >= 10_000 else 10_000
        run = ours(count, steps)
        run()
        most = rounds if count <= 1_000_000 else 2
        per_step[count] = min(seconds(run) for _ in range(most)) / (count * steps)
    reference = per_step[100_000]
    rows = []
    for count, cost in per_step.items():
        # Only from 10⁵ up the cost has to be flat: at most 1.3 times that of 10⁵.
        bar = 1 / 1.3 if count > 100_000 else 0.0
        work = f"{count} trajectories: seconds per step and trajectory"
        rows.append(Row(work, "ours, 100000", cost, reference, reference / cost, bar))
        print(line(rows[-1]), flush=True)
    yield rows


def maps(rounds: int) -> Iterator[list[Row]]:
    """Where a million starts end, each map to convergence; diffrax has no ends and no status."""
    start, two, descent, word = pixels(MAP), fo.problems.analytic("poly_two"), *_descent()
    adam = fo.classic.adam(lr=MAP_STEP)
    run = partial(fo.integrate, problem=two, start=start, compile=True)
    settled, most = fo.stop.gradient(1e-4), 20_000
    falling = fo.LyapunovControl(first_step=MAP_STEP)
    tolerances = fo.ErrorControl(rtol=TOLERANCE, atol=TOLERANCE)
    ours = {
        "gradient descent to convergence": partial(
            run, descent, word, step_size=MAP_STEP, steps=most, stop=settled
        ),
        "Adam to convergence": partial(
            run, adam.flow, adam.scheme, step_size=MAP_STEP, steps=most, stop=settled
        ),
        f"Dormand–Prince {TOLERANCE:g} to T = {DURATION:g}": partial(
            run, descent, fo.RungeKutta("dopri5"), control=tolerances, duration=DURATION
        ),
        "energy-controlled descent to convergence": partial(
            run, descent, fo.Euler(), control=falling, steps=most, stop=settled
        ),
    }
    # The vectors of diffrax step until the last of their trajectories has converged.
    steps = int(ours["gradient descent to convergence"]().steps.max())
    peers = {
        0: {"diffrax Euler": (rivals.diffrax_euler(start, MAP_STEP, steps), 2.0)},
        2: {"diffrax": (rivals.diffrax_adaptive(start, DURATION, TOLERANCE), 8.0)},
    }
    for number, (work, whole) in enumerate(ours.items()):
        work = f"map of {MAP} × {MAP} starts: {work}"
        if number in peers:
            rows = race(work, whole, peers[number], rounds)
            yield rows
            best = rows[0].ours
        else:
            whole()
            best = min(seconds(whole) for _ in range(2))
        allowed = Row(work, f"{MAP_SECONDS:g} s allowed", best, MAP_SECONDS, MAP_SECONDS / best, 1)
        print(line(allowed), flush=True)
        yield [allowed]


def pixels(count: int) -> Tensor:
    """One start in each pixel of the square of poly_two, none on an axis of its symmetry."""
    side = (torch.arange(count, dtype=torch.float64) + 0.3) * (6.0 / count) - 3.0
    return torch.cartesian_prod(side + 0.5 / count, side)


def _descent() -> tuple:
    return fo.flows.gradient_flow(), fo.Splitting("A")


SUITES = {
    "ensemble": ensemble,
    "adaptive": adaptive,
    "replicas": replicas,
    "rows": rows,
    "scaling": scaling,
    "maps": maps,
}


def line(row: Row) -> str:
    """A row of the table in docs/kernels.md."""
    bar = f"{row.bar:.2g}" if row.bar else "–"
    mark = "" if row.holds else ", **missed**"
    return (
        f"| {row.work} | {row.peer} | {_time(row.ours)} | {_time(row.theirs)} "
        f"| {row.faster:.2g} | {bar}{mark} |"
    )


def _time(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value > 1e-6 else f"{value * 1e9:.2g} ns"


def main() -> int:
    """Exit status 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--out", type=Path, default=Path("results/peers.json"))
    parser.add_argument("--suite", choices=SUITES, nargs="*", default=list(SUITES))
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    print("| work | peer | flowopt | peer takes | times faster | bar |")
    print("|---|---|--:|--:|--:|--:|")
    rows = [
        row for name in arguments.suite for found in SUITES[name](arguments.rounds) for row in found
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "rows": [asdict(row) for row in rows]}
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    missed = sum(not row.holds for row in rows)
    print(f"\n{len(rows)} rows, {missed} beyond their bar; {environment()}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
