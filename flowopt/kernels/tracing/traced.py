"""What a trace gives: a scalar program, what it reads and what it computes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowopt.kernels.program import Program
from flowopt.kernels.scalar import scalar_dtype


@dataclass(frozen=True)
class Argument:
    """A tensor that a program reads.

    Attributes:
        lane: Whether it has one value (or one array of them) per trajectory, on its first axis.
        dtype: Of its elements.
        shape: As traced; (1, …) where there is one per trajectory.
        wide: Whether one value stands for all its elements.
    """

    lane: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    wide: bool = False

    def values(self, program: Program, slot: int) -> list[int]:
        """Its elements in a program, in row-major order; one value where that stands for all."""
        kind, count = scalar_dtype(self.dtype), math.prod(self.shape)
        if self.wide:
            return [program.input(kind, slot, None, count)]
        return [program.input(kind, slot, element) for element in range(count)]


@dataclass(frozen=True)
class Traced:
    """A function as a scalar program.

    Attributes:
        program: The values.
        arguments: Inputs of the function, then tensors that it closes over.
        outputs: Values of each result, in row-major order; None for an input handed back.
        captured: The tensors that it closes over.
        baked: Positions in `captured` and contents of whole numbers used as indices.
        rows: What "rows" computes, where the step evaluates a problem row by row.
    """

    program: Program
    arguments: tuple[Argument, ...]
    outputs: tuple[tuple[int, ...] | None, ...]
    captured: tuple[Tensor, ...]
    baked: Mapping[int, Tensor]
    rows: "Rows | None" = None

    @cached_property
    def unrolled(self) -> frozenset[int]:
        """Arguments of which single elements are read."""
        return frozenset(node.data[0] for node in self.program.nodes if node.op == "input")


@dataclass(frozen=True)
class Rows:
    """Loss and gradient of one row of the data, to be summed over rows.

    Attributes:
        traced: Inputs are the leaves of θ, then one row of each table; results are the loss, then
            the gradient by leaves.
        tables: The data; each has one row per entry of its first axis.
        mean: Whether the loss is the mean over rows, not the sum.
        apart: Whether trajectories see different rows at a time.
        slots: Arguments of the step that are the tables, then what `traced` closes over.
        order: Arguments that say which rows steps see; none where they see all.
    """

    traced: Traced
    tables: tuple[Tensor, ...]
    mean: bool
    apart: bool = False
    slots: tuple[int, ...] = ()
    order: tuple[int, ...] = ()

    def results(self) -> list[list[int]]:
        """Values of the loss, then of the gradient by leaves."""
        program, arguments = self.traced.program, self.traced.arguments
        return [
            # What is handed back as it came is an input.
            arguments[place].values(program, place) if output is None else list(output)
            for place, output in enumerate(self.traced.outputs)
        ]
