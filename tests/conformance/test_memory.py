"""Peak memory of a training step, counted by torch's allocator, over that of torch's Adam."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import flowopt as fo
from tests.reference.optimizers import kept_tensors

TENSORS, SIZE = 20, 50_000
MOST = 1.1
OPTIMIZERS = {
    "torch": torch.optim.Adam,
    "torch, lists": lambda p: torch.optim.Adam(p, foreach=True),
    "lists": fo.optim.Adam,
    "compiled": lambda p: fo.optim.Adam(p, compile=True),
}


@cache
def peak(name, tensors=TENSORS, size=SIZE):
    """Most bytes at any moment over those of the parameters, with new gradients at every step."""
    parameters = [nn.Parameter(torch.ones(size)) for _ in range(tensors)]
    optimizer = OPTIMIZERS[name](parameters)

    def step():
        for parameter in parameters:
            parameter.grad = torch.ones(size)
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    kept = [t for p in parameters for t in kept_tensors(optimizer, p).values()]
    kept = [tensor for tensor in kept if tensor.numel() == size]
    assert len(kept) == 2 * tensors
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return (most + 4 * size * 3 * tensors) / (4 * size * tensors)


@pytest.mark.parametrize(
    ("ours", "theirs", "tensors"),
    [
        ("compiled", "torch", TENSORS),
        ("compiled", "torch, lists", TENSORS),
        ("lists", "torch, lists", TENSORS),
        ("lists", "torch", TENSORS),
        ("compiled", "torch", 1),
        ("lists", "torch", 1),
    ],
)
def test_a_step_takes_little_more_memory_than_one_of_torch(ours, theirs, tensors):
    size = TENSORS * SIZE // tensors
    assert peak(ours, tensors, size) <= MOST * peak(theirs, tensors, size)


def test_a_compiled_step_takes_no_memory():
    # Parameters, gradients and two averages; and numbers that are no tensors of theirs.
    assert peak("compiled") == pytest.approx(4.0, abs=0.01)
