"""Arrays of which one value stands for all elements: what acts on every element alike.

The parameters of a network and what a method keeps for each of them move by the same formula, so
one line of the program serves them all, and the kernel runs over the elements in a loop.
"""

import math
from typing import Any

import numpy as np
import torch

from flowopt.kernels.program import I64, Program, UnfitError
from flowopt.kernels.scalar import Scalar, scalar_dtype
from flowopt.kernels.tracing.arrays import Array
from flowopt.kernels.tracing.noise import random_element
from flowopt.kernels.tracing.operations import Row

# Operations that keep all elements and their order.
SAME_ORDER = {
    "view",
    "_unsafe_view",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "expand",
    "detach",
    "alias",
    "clone",
    "contiguous",
    "lift_fresh",
    "lift_fresh_copy",
    "_to_copy",
}
COPIED = {"clone", "contiguous", "lift_fresh_copy", "_to_copy"}
SUMS = {"sum": False, "mean": True}


class WideArray(Array):
    """A tensor with one value for all its elements; views of it share the value's place."""

    def __init__(self, program: Program, ids: np.ndarray | None, dtype: torch.dtype, **argument):
        super().__init__(program, None, dtype, **argument)
        self._given = self.slot is not None
        if ids is None:
            assert self.slot is not None
            size = math.prod(self.shape)
            self._place = [program.input(scalar_dtype(dtype), self.slot, None, size)]
        else:
            self._place = [int(ids.flat[0])]

    @property
    def index(self) -> int:
        """The value."""
        return self._place[0]

    @property
    def ids(self) -> np.ndarray:
        """There are none."""
        raise UnfitError(
            "it treats some elements of a network's parameters otherwise than the rest"
        )

    def like(self, index: int, dtype: torch.dtype | None = None) -> Array:
        """Another value in the same shape."""
        return _array(self.program, index, dtype or self.dtype, self.shape)

    def converted(self, dtype: torch.dtype) -> Array:
        """A copy in another type."""
        return self.like(self.program.convert(self.index, scalar_dtype(dtype)), dtype)

    def shaped(self, shape: tuple[int, ...]) -> "WideArray":
        """The same elements in another shape."""
        ids = np.full(shape, self.index, dtype=np.int64)
        result = WideArray(self.program, ids, self.dtype, shape=shape)
        result._place, result._given = self._place, self._given
        return result

    def assigned(self, other: Array) -> "WideArray":
        """This tensor, and every view of it, after all elements have been written over."""
        if self._given:
            raise UnfitError("the step changes a tensor that it is given")
        self._place[0] = single(other)
        return self


class WideNoise(Array):
    """Random numbers for the elements of several leaves, still to be split."""

    def __init__(self, kind: str, place: list[Array], substep: int, first: int, count: int):
        super().__init__(place[0].program, None, torch.float64, shape=(1, count))
        self.kind, self.where, self.substep, self.first = kind, place, substep, first

    @property
    def ids(self) -> np.ndarray:
        """There are none."""
        raise UnfitError("it takes single elements of a network's noise")

    def piece(self, start: int, count: int) -> Array:
        """Numbers from one on, for one leaf."""
        seed, trajectory, step = (
            Scalar(self.program, int(array.ids.flat[0])) for array in self.where
        )
        place = Scalar(self.program, self.program.emit("place", I64, size=count, data=count))
        first = self.first + start
        at = place + first if count > 1 else seed.like(first)
        number = random_element(self.kind, seed, trajectory, step, self.substep, at)
        many = f", elements {first} to {first + count - 1}" if count > 1 else f", element {first}"
        self.program.notes[number.index] = f"{self.kind}(substep {self.substep}{many})"
        return _array(self.program, number.index, torch.float64, (1, count))


def _array(program: Program, index: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Array:
    kind = WideArray if math.prod(shape) > 1 else Array
    return kind(program, np.full(shape, index, dtype=np.int64), dtype, shape=shape)


def concerns(name: str, values: list, rows: bool) -> bool:
    """Whether an operation is one of this file."""
    random = rows and name in ("flowopt::normal.default", "flowopt::uniform.default")
    base = name.partition(".")[0]
    made = base.endswith("_like") or base.startswith("new_")
    wide = any(isinstance(value, WideArray | WideNoise) for value in values)
    return random or (wide and not made)


def single(array: Array) -> int:
    """The value that all elements of an array are."""
    if isinstance(array, WideArray):
        return array.index
    found = np.unique(array.ids)
    if len(found) != 1:
        raise UnfitError("it gives the elements of a network's parameters different formulas")
    return int(found[0])


def elementwise(row: Row, kind: str, values: list, out: torch.Tensor) -> Array:
    """A row of the elementwise operations on every element."""
    arrays = [value for value in values if isinstance(value, Array)]
    shape, program = tuple(out.shape), arrays[0].program
    operands = []
    for array in arrays:
        if isinstance(array, WideArray) and array.shape != shape:
            raise UnfitError("it joins each element of a network's parameters with several others")
        own = row.types == "own" or (row.types == "choice" and array.dtype == torch.bool)
        operand = Scalar(program, single(array))
        operands.append(operand if own else operand.to(kind))
    given = iter(operands)
    filled = [next(given) if isinstance(value, Array) else value for value in values]
    result = row.function(*filled).to(scalar_dtype(out.dtype))
    return _array(program, result.index, out.dtype, shape)


def moved(name: str, values: list, out: Any) -> Any:
    """What keeps all elements or sums them; a split of noise."""
    base, source = name.partition(".")[0], values[0]
    if base in ("flowopt::normal", "flowopt::uniform"):
        return WideNoise(base.removeprefix("flowopt::"), values[:3], *values[3:])
    if isinstance(source, WideNoise) and base == "split_with_sizes":
        ends = np.cumsum(values[1]).tolist()
        return tuple(source.piece(e - n, n) for n, e in zip(values[1], ends, strict=True))
    if isinstance(source, WideNoise) and base in SAME_ORDER:
        source = source.piece(0, source.shape[1])
    if base in SAME_ORDER and out.numel() == math.prod(source.shape):
        copied = source.converted(out.dtype) if base in COPIED else source
        return copied.shaped(tuple(out.shape)) if isinstance(copied, WideArray) else copied
    if base in SUMS and out.numel() == 1:
        count, program = math.prod(source.shape), source.program
        terms, kind = source.converted(out.dtype), scalar_dtype(out.dtype)
        total = Scalar(program, program.emit("total", kind, single(terms), data=count))
        total = total / count if SUMS[base] else total
        return _array(program, total.index, out.dtype, tuple(out.shape))
    raise UnfitError(f"operation {name} on a network's parameters has no form in a loop over rows")
