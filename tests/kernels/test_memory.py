"""What a run of many trajectories takes."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = Path("/proc/self/status")
# The start and the end are both in memory while the last launch runs.
COPIES = 2.5

SCRIPT = """
import sys
import torch
import flowopt as fo
from tests.kernels import losses

def kilobytes(key):
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

def run(count):
    start = torch.linspace(-1, 1, 2 * count, dtype=torch.float64).reshape(count, 2)
    return fo.integrate(
        fo.flows.gradient_flow(), fo.Euler(), losses.Plain(losses.neuron), start,
        step_size=0.01, steps=int(sys.argv[1]), compile=True,
    )

run(100)
before = kilobytes("VmRSS:")
s = run(500_000)
leaves = [s.position, *s.state.position, s.state.time, s.state.step, s.status, s.steps, s.loss]
size = sum(t.numel() * t.element_size() for t in (*leaves, *s.counts.values()))
print((kilobytes("VmHWM:") - before) * 1024 / size)
"""
# Arrays of an ensemble are made and freed, before memory is kept and after.
FAULTS = """
import resource
import torch
from flowopt.kernels.batch import keep_pages

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [torch.ones(57_600, dtype=torch.float64) for _ in range(20)]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults * resource.getpagesize() / sum(array.nbytes for array in arrays)

pages()
without = pages()
keep_pages([torch.empty(57_600, dtype=torch.float64)] * 5)
pages()
print(without, pages())
"""


def numbers(script, *arguments):
    """What a script prints in a process of its own."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(not PROCESS.exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("steps", [2, 200])
def test_peak_memory_is_that_of_start_and_end_whatever_the_number_of_steps(steps):
    (copies,) = numbers(SCRIPT, str(steps))
    assert 1.0 < copies < COPIES


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps memory")
def test_arrays_take_the_memory_that_those_of_the_run_before_left():
    without, kept = numbers(FAULTS)
    assert without > 0.5
    assert kept < 0.1
