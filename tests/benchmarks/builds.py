"""How long kernels take to build, and to be found again by another process.

Imports and traces are apart: printing, LLVM, the cache and loading are counted, for the kernel that
starts trajectories and the one that steps them together.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import torch

import flowopt as fo
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.step import Part
from tests.benchmarks.eager import TwoParameters
from tests.benchmarks.kernels import Network
from tests.benchmarks.measure import Ratio, ratio_of

FOUND_AGAIN = 0.05
# Operations of a step up to which a build may take so many seconds.
LIMITS = {500: 0.2, 5000: 2.0}


def _run(name: str) -> None:
    """One short run of a work by a kernel."""
    two, network = TwoParameters(), Network()
    descent = fo.flows.gradient_flow()
    thermal = fo.flows.langevin(friction=1.0, temperature=0.1)
    control = fo.ErrorControl(rtol=1e-8, atol=1e-8)
    flow, scheme, problem, settings = {
        "gradient descent": (descent, fo.Euler(), two, {"step_size": 0.01}),
        "Langevin BAOAB": (thermal, fo.Splitting("BAOAB"), two, {"step_size": 0.01}),
        "Dormand-Prince": (descent, fo.RungeKutta("dopri5"), two, {"control": control}),
        "network of 25 parameters": (descent, fo.Euler(), network, {"step_size": 0.01}),
    }[name]
    start = torch.zeros(2, problem.dim, dtype=torch.float64)
    fo.integrate(flow, scheme, problem, start, steps=2, compile=True, **settings)


WORKS = ("gradient descent", "Langevin BAOAB", "Dormand-Prince", "network of 25 parameters")


def _report(name: str) -> None:
    """Prints seconds for the kernels of a work, and the operations of its longer one."""
    seconds, operations = [0.0], [0]
    kernel = Part.kernel

    def timed(part: Part, *place: object) -> object:
        begin = time.perf_counter()
        found = kernel(part, *place)
        seconds[0] += time.perf_counter() - begin
        nodes = part.traced.program.nodes
        used = part.traced.program.needed([i for out in part.traced.outputs for i in out or ()])
        operations[0] = max(
            operations[0], sum(nodes[i].op not in ("constant", "input") for i in used)
        )
        return found

    this_machine()
    Part.kernel = timed
    _run(name)
    print(seconds[0], operations[0])


def _in_a_process(name: str, folder: str) -> tuple[float, int]:
    command = [sys.executable, "-m", "tests.benchmarks.builds", name]
    environment = {**os.environ, "FLOWOPT_CACHE": folder}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds, operations = done.stdout.split()
    return float(seconds), int(operations)


class Build(NamedTuple):
    """Seconds over those allowed, in processes of their own."""

    name: str

    def measure(self, rounds: int) -> list[Ratio]:
        """Building, and finding again."""
        built, again, operations = [], [], 0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                seconds, operations = _in_a_process(self.name, folder)
                built.append(seconds)
                again.append(_in_a_process(self.name, folder)[0])
        allowed = next(limit for most, limit in LIMITS.items() if operations <= most)
        return [
            ratio_of(
                f"{what}: {self.name}, {operations} operations", [[t, limit] for t in times], 1
            )
            for what, times, limit in (
                ("build", built, allowed),
                ("found again", again, FOUND_AGAIN),
            )
        ]


def comparisons() -> list[Build]:
    """All works."""
    return list(map(Build, WORKS))


if __name__ == "__main__":
    _report(sys.argv[1])
