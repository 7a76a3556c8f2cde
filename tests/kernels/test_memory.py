"""What a run of many trajectories takes."""

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


@pytest.mark.slow
@pytest.mark.skipif(not PROCESS.exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("steps", [2, 200])
def test_peak_memory_is_that_of_start_and_end_whatever_the_number_of_steps(steps):
    command = [sys.executable, "-c", SCRIPT, str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 1.0 < float(done.stdout) < COPIES
