"""A function of tensors run as a kernel: one step that ends every trajectory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowopt.kernels.loop import Loop, as_loop
from flowopt.kernels.native.build import load
from flowopt.kernels.native.launch import pointers, run_blocks
from flowopt.kernels.native.machine import Machine, this_machine
from flowopt.kernels.native.trajectories import print_trajectories
from flowopt.kernels.tracing.guard import inside_tables
from flowopt.kernels.tracing.trace import trace

ENDED = 3


def by_kernel(
    function: Callable[..., Tensor],
    *columns: Tensor,
    machine: Machine | None = None,
    copies: int | None = None,
) -> Tensor:
    """function(*columns), elementwise over the first axis, computed by a kernel.

    Args:
        function: Of tensors (1, *rest) to one tensor (1, *rest).
        columns: (count, *rest).
        machine: For which to print; by default this one.
        copies: Vectors per block.
    """
    inputs, captured, loop = _one_step(function, columns)
    status, result, *_ = inputs
    arguments = [columns_of(t) for t in inputs] + [t.contiguous() for t in captured]
    left, results = run_loop(loop, arguments, machine or this_machine(), copies=copies)
    assert left == 0
    assert torch.equal(results[0].flatten(), torch.full_like(status, ENDED))
    return results.get(1, arguments[1]).reshape(-1, len(status)).t().reshape(result.shape)


def run_loop(
    loop: Loop, arguments: Sequence[Tensor], machine: Machine, *, copies: int | None = None
) -> tuple[int, dict[int, Tensor]]:
    """One step of trajectories that all run: how many still do, and results by slot."""
    source = print_trajectories(loop, machine, copies)
    code = load(source.text, source.symbols, machine)
    results = {slot: torch.full_like(arguments[slot], 7) for slot in source.layout.carried}
    shared = {slot: arguments[slot][:1] for slot in source.layout.shared}
    addresses, sizes = pointers(source.layout, arguments, results, shared)
    count = arguments[loop.status].numel()
    left = run_blocks(code, addresses, sizes, trials=1, count=count, lanes=source.lanes)
    return left, results


def loop_of(function: Callable[..., Tensor], *columns: Tensor) -> Loop:
    """What `by_kernel` runs."""
    return _one_step(function, columns)[2]


def _one_step(
    function: Callable[..., Tensor], columns: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], Loop]:
    """Status, result and columns; what the function closes over; the step that fills the result."""
    like = function(*(c[:1] for c in columns))
    count = len(columns[0])

    def step(status: Tensor, result: Tensor, *values: Tensor) -> list[Tensor]:
        return [torch.full_like(status, ENDED), *inside_tables([function(*values)])]

    status = torch.zeros(count, dtype=torch.int64)
    inputs = [status, like.new_zeros((count, *like.shape[1:])), *columns]
    traced = trace(step, [t[:1] for t in inputs], [True] * len(inputs))
    return inputs, traced.captured, as_loop(traced, 0, frozenset())


def columns_of(tensor: Tensor) -> Tensor:
    """(count, *rest) as the kernel has it: (*rest, count) in memory."""
    return tensor.reshape(len(tensor), -1).t().contiguous()


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    """Equal numbers, type and shape; NaN where NaN."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def samples(kinds: Sequence[str], count: int = 61, seed: int = 0) -> list[Tensor]:
    """Random numbers and edge cases: "real", "unit" (-1, 1), "positive", "above one", "bool"."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, torch.inf, -torch.inf, torch.nan])
    found = []
    for shift, kind in enumerate(kinds):
        numbers = torch.randn(count, generator=generator, dtype=torch.float64)
        if kind == "bool":
            found.append(numbers > 0)
            continue
        if kind == "whole":
            found.append((numbers * 10).to(torch.int64))
            continue
        numbers = {
            "real": numbers * 3,
            "unit": numbers.tanh(),
            "positive": numbers.abs(),
            "above one": 1 + numbers.abs(),
        }[kind]
        special = edges.roll(3 * shift).to(torch.float64)
        found.append(torch.cat([numbers, special]))
    return found
