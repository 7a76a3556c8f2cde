"""One step of many tensors, element by element, as one native kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowopt.core.interfaces import Key
from flowopt.core.state import Leaves
from flowopt.kernels.native.build import Code, load
from flowopt.kernels.native.launch import run_chunks
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.native.updates import Elementwise, print_update
from flowopt.kernels.program import BOOL, F32, F64, I64, UnfitError
from flowopt.kernels.scalar import scalar_dtype
from flowopt.kernels.tracing.noise import normal_at, uniform_at
from flowopt.kernels.tracing.trace import Traced, trace

CHUNK = 1 << 15
SIZES = {torch.float64: 8, torch.float32: 4}


class ElementNoise(NamedTuple):
    """Noise of one element that stands for all, while a step is traced.

    Attributes:
        seed: 0-d int64.
        element: Index of the element among all, (1,), int64.
        first: Index of the first element, 0-d: scalars of a block take its numbers.
    """

    seed: Tensor
    element: Tensor
    first: Tensor

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Standard normals."""
        return self._numbers(normal_at, like, key)

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Uniforms on (0, 1)."""
        return self._numbers(uniform_at, like, key)

    def _numbers(self, generator: Callable, like: Leaves, key: Key) -> Leaves:
        place = (self.seed, torch.zeros_like(self.seed), key.step, key.substep)
        return tuple(
            generator(*place, self.element if leaf.ndim else self.first).to(leaf) for leaf in like
        )


@dataclass(frozen=True)
class Update:
    """A kernel that steps tensors in place.

    Attributes:
        code: The kernel.
        dtype: Of the tensors.
        written: Which columns it writes.
        types: Of the numbers that all elements share.
        captured: Numbers that the step closes over, read anew at each launch.
        kept: Which numbers it changes.
    """

    code: Code
    dtype: torch.dtype
    written: tuple[bool, ...]
    types: tuple[str, ...]
    captured: tuple[Tensor, ...]
    kept: tuple[int, ...]

    def run(self, table: "Table", numbers: Sequence[float | int]) -> list[float | int]:
        """Steps all tensors of a table; returns the numbers after the step."""
        given = [*numbers, *(tensor.item() for tensor in self.captured)]
        floats = np.empty(len(given) + len(self.kept), dtype=np.float64)
        whole = floats.view(np.int64)
        for place, (kind, number) in enumerate(zip(self.types, given, strict=True)):
            (whole if kind == I64 else floats)[place] = number
        run_chunks(self.code, table.rows, floats, table.ends)
        results = list(numbers)
        for place, changed in enumerate(self.kept, len(given)):
            kind = whole if self.types[changed] == I64 else floats
            results[changed] = kind[place].item()
        return results


@dataclass(frozen=True)
class Table:
    """Chunks of tensors.

    Attributes:
        rows: Addresses of the columns, elements, index of the first element; int64.
        ends: Elements up to the end of each row.
        owner: Tensor of each row.
        shift: Bytes from the tensor's first element to the row's.
    """

    rows: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    shift: np.ndarray

    def move(self, column: int, addresses: np.ndarray) -> None:
        """The tensors of one column lie elsewhere."""
        self.rows[:, column] = addresses[self.owner] + self.shift


def chunks(addresses: np.ndarray, counts: np.ndarray, offsets: np.ndarray, size: int) -> Table:
    """The table of tensors.

    Args:
        addresses: (column, tensor).
        counts: Elements of each tensor.
        offsets: Index of the first element of each tensor among all.
        size: Bytes of an element.
    """
    parts = -(-counts // CHUNK)
    owner = np.repeat(np.arange(len(counts)), parts)
    within = CHUNK * (np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts))
    lengths = np.minimum(counts[owner] - within, CHUNK)
    shift = within * size
    rows = np.column_stack([*(addresses[:, owner] + shift), lengths, offsets[owner] + within])
    return Table(np.ascontiguousarray(rows, dtype=np.int64), np.cumsum(lengths), owner, shift)


def build_update(
    function: Callable[..., list[Tensor]],
    columns: int,
    numbers: Sequence[torch.dtype],
    dtype: torch.dtype,
) -> Update:
    """Traces and builds a step.

    Args:
        function: Of one element of each column, (1,), its index, (1,) int64, and the numbers, 0-d,
            to the same list after the step.
        columns: How many.
        numbers: Types of the numbers.
        dtype: Of the columns.

    Raises:
        UnfitError: The step can not be a kernel.
    """
    if dtype not in SIZES:
        raise UnfitError(f"kernels step float64 and float32, not {dtype}")
    samples = [torch.ones(1, dtype=dtype) for _ in range(columns)]
    samples.append(torch.zeros(1, dtype=torch.int64))
    samples += [torch.ones((), dtype=kind) for kind in numbers]
    lanes = [True] * (columns + 1) + [False] * len(numbers)
    traced = trace(function, samples, lanes)
    machine = this_machine()
    work, kept = _elementwise(traced, columns, len(numbers))
    narrow = not work.calls and all(
        work.program.nodes[i].dtype in (F32, BOOL) for i in work.used if i not in work.uniform
    )
    # Twice as many float32 numbers as float64 ones fill a register.
    source = print_update(work, (2 if narrow else 1) * machine.width, machine.vector_function)
    return Update(
        load(source.text, source.symbols, machine),
        dtype,
        tuple(result is not None for result in work.results),
        tuple(work.program.nodes[i].dtype for i in work.numbers),
        traced.captured,
        kept,
    )


def _elementwise(traced: Traced, columns: int, count: int) -> tuple[Elementwise, tuple[int, ...]]:
    """What is computed for one element, and which numbers change."""
    program, arguments, outputs = traced.program, traced.arguments, traced.outputs
    if any(argument.shape not in ((), (1,)) for argument in arguments):
        raise UnfitError("the step reads a tensor of more than one number that it closes over")
    inputs = [
        program.input(scalar_dtype(argument.dtype), slot, 0)
        for slot, argument in enumerate(arguments)
    ]
    numbers = inputs[columns + 1 :]
    if any(program.nodes[i].dtype not in (F64, I64) for i in numbers):
        raise UnfitError("the step closes over a number that is neither float64 nor int64")
    results = [None if output is None else output[0] for output in outputs[:columns]]
    changed = {
        place: output[0]
        for place, output in enumerate(outputs[columns + 1 : columns + 1 + count])
        if output is not None
    }
    work = Elementwise(
        program,
        inputs[:columns],
        results,
        inputs[columns],
        numbers,
        tuple(changed.values()),
        scalar_dtype(arguments[0].dtype),
    )
    if not work.uniform.issuperset(work.kept):
        raise UnfitError("a number that all elements share depends on single elements")
    for place, index in changed.items():
        if program.nodes[index].dtype != program.nodes[numbers[place]].dtype:
            raise UnfitError("a step changes the type of a number")
    if any(r is not None and program.nodes[r].dtype != work.dtype for r in results):
        raise UnfitError("a step changes the type of a tensor")
    return work, tuple(changed)
