"""One step of many tensors, element by element, as one native kernel."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from struct import Struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowopt.core.interfaces import Key
from flowopt.core.noise import WORDS
from flowopt.core.state import Leaves
from flowopt.kernels.native.build import Code, load
from flowopt.kernels.native.inner.columns import BF16, F16, STORED
from flowopt.kernels.native.launch import chunk_edges, chunk_threads
from flowopt.kernels.native.machine import Machine, this_machine
from flowopt.kernels.native.memory.spans import lay
from flowopt.kernels.native.passes import passes_of
from flowopt.kernels.native.team import Pieces
from flowopt.kernels.native.updates import Elementwise, print_update
from flowopt.kernels.program import BOOL, F32, F64, I64, UnfitError
from flowopt.kernels.scalar import scalar_dtype
from flowopt.kernels.tracing.noise import normal_at, uniform_at
from flowopt.kernels.tracing.trace import trace
from flowopt.kernels.tracing.traced import Traced

# Elements from which on torch divides a tensor among threads, and so do we.
GRAIN = 1 << 15
# Elements to whose multiples large tensors are divided: whole vectors and blocks.
ALIGNED = 64
# Elements of a chunk that is summed.
SUMMED = 1 << 14
# Types of tensors, as the printed code names them.
NAMES = {torch.float64: F64, torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16}


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

    def block(self, places: tuple[int, ...], position: Leaves) -> "ElementNoise":
        """The same: the only leaf knows its place among all."""
        return self

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
        block: Elements that share values, by their index; chunks start where a block does.
        passes: Kernels that sum over elements before the step, and how many sums each gives.
    """

    code: Code
    dtype: torch.dtype
    written: tuple[bool, ...]
    types: tuple[str, ...]
    captured: tuple[Tensor, ...]
    kept: tuple[int, ...]
    block: int
    passes: tuple[tuple[Code, int], ...] = ()

    def totals(
        self, table: "Table", place: int, numbers: Sequence[float | int], sums: Sequence[float]
    ) -> list[float]:
        """What a pass sums over all elements of a table.

        Args:
            table: The tensors.
            place: Of the pass.
            numbers: Shared by all elements.
            sums: Of the passes before.
        """
        code, count = self.passes[place]
        chunks = np.zeros((count, len(table.rows)))
        unknown = [0.0] * (sum(count for _, count in self.passes) - len(sums))
        given, kept = self._formats
        memory = ctypes.create_string_buffer(given.size + kept.size)
        room = chunks.ctypes.data, chunks.shape[1]
        pieces = self._pieces(code, table, memory, chunk_threads(table.elements), room)
        self._launch(pieces, memory, numbers, (*sums, *unknown))
        return chunks.sum(1).tolist()

    def run(
        self, table: "Table", numbers: Sequence[float | int], sums: Sequence[float] = ()
    ) -> list[float | int]:
        """Steps all tensors of a table; returns the numbers after the step."""
        given, kept = self._formats
        threads = chunk_threads(table.elements)
        key = id(self.code), threads
        if key not in table.launches:
            memory = ctypes.create_string_buffer(given.size + kept.size)
            table.launches[key] = memory, self._pieces(self.code, table, memory, threads)
        memory, pieces = table.launches[key]
        self._launch(pieces, memory, numbers, sums)
        results = list(numbers)
        for place, number in zip(self.kept, kept.unpack_from(memory, given.size), strict=True):
            results[place] = number
        return results

    def _pieces(
        self,
        code: Code,
        table: "Table",
        memory: ctypes.Array,
        threads: int,
        room: tuple[int, int] = (0, 0),
    ) -> Pieces:
        places = table.address, ctypes.addressof(memory)
        return Pieces(code, places, table.edges(threads), room, threads)

    def _launch(
        self,
        pieces: Pieces,
        memory: ctypes.Array,
        numbers: Sequence[float | int],
        sums: Sequence[float],
    ) -> None:
        """Runs a kernel with numbers, which it finds in memory and changes behind them."""
        closed_over = [tensor.item() for tensor in self.captured]
        self._formats[0].pack_into(memory, 0, *numbers, *closed_over, *sums)
        pieces.run()

    @cached_property
    def writes(self) -> tuple[int, ...]:
        """Columns that it writes."""
        return tuple(i for i, written in enumerate(self.written) if written)

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Columns that it only reads."""
        return tuple(i for i, written in enumerate(self.written) if not written)

    @cached_property
    def _formats(self) -> tuple[Struct, Struct]:
        """How numbers lie in memory: those that are given, those that are changed."""
        letters = ["q" if kind == I64 else "d" for kind in self.types]
        return Struct("".join(letters)), Struct("".join(letters[i] for i in self.kept))


@dataclass(frozen=True)
class Table:
    """Chunks of tensors.

    Attributes:
        rows: Addresses of the columns, elements, index of the first element; int64.
        ends: Elements up to the end of each row.
        owner: Tensor of each row.
        shift: Bytes from the tensor's first element to the row's.
        launches: Memory of numbers and pieces of work, by kernel and threads.
    """

    rows: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    shift: np.ndarray
    _edges: dict[int, list[int]] = field(default_factory=dict)
    launches: dict[tuple[int, int], tuple[ctypes.Array, Pieces]] = field(default_factory=dict)

    @cached_property
    def address(self) -> int:
        """Of the rows."""
        return self.rows.ctypes.data

    @cached_property
    def elements(self) -> int:
        """Of all rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def edges(self, threads: int) -> list[int]:
        """Edges of the pieces that so many threads share."""
        if threads not in self._edges:
            self._edges[threads] = chunk_edges(self.ends, threads)
        return self._edges[threads]

    def move(self, addresses: np.ndarray) -> None:
        """The tensors lie at addresses, (column, tensor), int64 and contiguous."""
        lay(addresses, self.owner, self.shift, self.rows)


def chunks(counts: np.ndarray, offsets: np.ndarray, columns: int, update: Update) -> Table:
    """The table of tensors, whose addresses `Table.move` fills in.

    Args:
        counts: Elements of each tensor.
        offsets: Index of the first element of each tensor among all.
        columns: How many tensors there are of each kind.
        update: What will step them.
    """
    # Elements before the first whole block have a chunk of their own.
    heads = np.minimum(-offsets % update.block, counts)
    begins = np.column_stack([np.zeros_like(heads), heads]).ravel()
    sizes = np.column_stack([heads, counts - heads]).ravel()
    threads = chunk_threads(int(counts.sum()))
    if update.passes:
        part, within, lengths = _fixed(sizes)
        share = None
    else:
        part, within, lengths, share = _shares(sizes, threads)
    owner, shift = part // 2, begins[part] + within
    rows = np.zeros((len(part), columns + 2), dtype=np.int64)
    rows[:, columns:] = np.column_stack([lengths, offsets[owner] + shift])
    edges = {}
    if share is not None:
        edges[threads] = np.searchsorted(share, np.arange(threads + 1)).tolist()
    return Table(rows, np.cumsum(lengths), owner, shift * update.dtype.itemsize, edges)


def _fixed(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part of each chunk, its first element there and its elements, whatever the threads."""
    pieces = -(-sizes // SUMMED)
    part = np.repeat(np.arange(len(sizes)), pieces)
    within = SUMMED * (np.arange(len(part)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    return part, within, np.minimum(SUMMED, sizes[part] - within)


def _shares(sizes: np.ndarray, threads: int) -> tuple[np.ndarray, ...]:
    """Part of each chunk, its first element there, its elements, and the thread that takes it.

    Large parts are divided among the threads as torch divides a tensor: what a thread has written
    last, gradients above all, is nearest to it. Small ones go whole to one thread.
    """
    large = sizes >= GRAIN
    small = np.where(large, 0, sizes)
    before = np.cumsum(small) - small
    whole = before * threads // max(int(small.sum()), 1)
    each = -(-sizes // (threads * ALIGNED)) * ALIGNED
    number = np.arange(len(sizes))
    part, within, lengths, share = [], [], [], []
    for thread in range(threads):
        begin = np.minimum(np.where(large, thread * each, 0), sizes)
        end = np.minimum(np.where(large, begin + each, sizes), sizes)
        taken = np.flatnonzero((end > begin) & (large | (whole == thread)))
        part.append(number[taken])
        within.append(begin[taken])
        lengths.append((end - begin)[taken])
        share.append(np.full(len(taken), thread))
    return tuple(map(np.concatenate, (part, within, lengths, share)))


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
    machine = this_machine()
    _check_known(dtype, machine)
    samples = [torch.ones(1, dtype=working(dtype)) for _ in range(columns)]
    samples.append(torch.zeros(1, dtype=torch.int64))
    samples += [torch.ones((), dtype=kind) for kind in numbers]
    lanes = [True] * (columns + 1) + [False] * len(numbers)
    traced = trace(function, samples, lanes, element=True)
    works, kept = _elementwise(traced, columns, len(numbers), NAMES[dtype])
    codes = [_printed(work, machine) for work in works]
    work = works[-1]
    return Update(
        codes[-1],
        dtype,
        tuple(result is not None for result in work.results),
        tuple(work.program.nodes[i].dtype for i in work.numbers),
        traced.captured,
        kept,
        WORDS if any(work.blocked for work in works) else 1,
        tuple((code, len(work.sums)) for code, work in zip(codes[:-1], works[:-1], strict=True)),
    )


def _printed(work: Elementwise, machine: Machine) -> Code:
    narrow = not work.calls and all(
        work.program.nodes[i].dtype in (F32, BOOL) for i in work.used if i not in work.uniform
    )
    # Twice as many float32 numbers as float64 ones fill a register.
    source = print_update(work, (2 if narrow else 1) * machine.width, machine.vector_function)
    return load(source.text, source.symbols, machine)


def working(dtype: torch.dtype) -> torch.dtype:
    """What tensors are stepped in: float32 for numbers of two bytes, rounded when stored."""
    return torch.float32 if dtype.itemsize == 2 else dtype


def _check_known(dtype: torch.dtype, machine: Machine) -> None:
    """Raises `UnfitError` where there is no code for a type."""
    if dtype not in NAMES:
        raise UnfitError(f"kernels step float64, float32, bfloat16 and float16, not {dtype}")
    if (
        dtype == torch.float16
        and machine.triple.startswith("x86")
        and "+f16c" not in machine.features
    ):
        raise UnfitError("this processor does not convert float16")


def _elementwise(
    traced: Traced, columns: int, count: int, stored: str
) -> tuple[list[Elementwise], tuple[int, ...]]:
    """What the passes of a step compute for one element, and which numbers change."""
    program, arguments, outputs = traced.program, traced.arguments, traced.outputs
    if any(node.op == "gather" for node in program.nodes):
        raise UnfitError("the step looks up a tensor at computed places")
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
        (),
        stored,
    )
    works = passes_of(work, len(inputs))
    work = works[-1]
    if not work.uniform.issuperset(work.kept):
        raise UnfitError("a number that all elements share depends on single elements")
    for place, index in zip(changed, work.kept, strict=True):
        if program.nodes[index].dtype != program.nodes[numbers[place]].dtype:
            raise UnfitError("a step changes the type of a number")
    dtype = STORED[stored].dtype
    if any(r is not None and program.nodes[r].dtype != dtype for r in work.results):
        raise UnfitError("a step changes the type of a tensor")
    return works, tuple(changed)
