"""What a run of many trajectories takes."""

import ctypes
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
# Blocks that glibc maps for an array of an ensemble, which it unmaps again: before and after.
MAPPED = """
import ctypes
import torch
from flowopt.kernels.batch import keep_pages

NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (*NAMES, "fordblks", "keepcost")]

info = ctypes.CDLL(None).mallinfo2
info.restype = Info

def mapped(count):
    before = info().hblks
    array = torch.empty(count, dtype=torch.float64)
    return info().hblks - before

# An array that is freed teaches glibc its own size: the next one is larger.
first = mapped(1_000_000)
keep_pages([torch.empty(1, dtype=torch.float64).expand(1_000_000)])
print(first, mapped(2_000_000))
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
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_arrays_take_the_memory_that_those_of_the_run_before_left():
    assert numbers(MAPPED) == [1, 0]
