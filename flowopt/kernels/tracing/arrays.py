"""Arrays of scalars: the torch operations that move, make or sum numbers, one row each.

An array holds indices of a program's values in a numpy array. Where torch's operation is a view,
so is numpy's: writing in place reaches every alias, as in torch. Arguments are read-only.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from flowopt.kernels.program import I64, Program, UnfitError
from flowopt.kernels.scalar import BITS, Scalar, maximum, minimum, scalar_dtype

# Elements among which one is chosen by comparison with each place; of more, a copy is a table.
MOST_CHOICES = 64


class Held(NamedTuple):
    """Elements of an argument, not read yet.

    Attributes:
        slot: Of the argument.
        places: Which element stands where.
        dtype: Of the argument.
        shared: Whether all trajectories have the same.
    """

    slot: int
    places: np.ndarray
    dtype: torch.dtype
    shared: bool


class Array:
    """A tensor whose elements are values of a program.

    Attributes:
        dtype: Of the tensor.
        slot: Of the argument that this array is, untouched; else None.
        held: Where its elements lie in an argument, if it is a part of one.
    """

    def __init__(self, program: Program, ids: np.ndarray | None, dtype: torch.dtype, **argument):
        self.program = program
        self.dtype = dtype
        self.slot: int | None = argument.get("slot")
        self.shape: tuple[int, ...] = tuple(argument.get("shape", () if ids is None else ids.shape))
        self.held: Held | None = argument.get("held")
        self._ids = ids

    @classmethod
    def argument(
        cls, program: Program, slot: int, dtype: torch.dtype, shape: Sequence[int], shared: bool
    ) -> "Array":
        """An argument, untouched."""
        places = np.arange(int(np.prod(shape))).reshape(tuple(shape))
        return cls(
            program, None, dtype, slot=slot, shape=shape, held=Held(slot, places, dtype, shared)
        )

    @property
    def ids(self) -> np.ndarray:
        """Indices of the values; those of an argument are made when first asked for."""
        if self._ids is None:
            assert self.held is not None
            slot, places, dtype, _ = self.held
            made, kind = self.program.input, scalar_dtype(dtype)
            values = [made(kind, slot, element) for element in places.ravel().tolist()]
            ids = [self.program.convert(value, scalar_dtype(self.dtype)) for value in values]
            self._ids = np.array(ids, dtype=np.int64).reshape(self.shape)
            self._ids.flags.writeable = False
        return self._ids

    def view(self, ids: np.ndarray) -> "Array":
        """Other positions of the same numbers."""
        return Array(self.program, ids, self.dtype)

    def scalars(self) -> list[Scalar]:
        """The elements in row-major order."""
        return [Scalar(self.program, int(index)) for index in self.ids.ravel()]

    def fresh(self, values: Sequence[Scalar], shape: Sequence[int]) -> "Array":
        """New numbers of the same type in a shape."""
        ids = np.array([value.index for value in values], dtype=np.int64).reshape(tuple(shape))
        return Array(self.program, ids, self.dtype)

    def converted(self, dtype: torch.dtype) -> "Array":
        """A copy in another type."""
        kind = scalar_dtype(dtype)
        result = self.fresh([value.to(kind) for value in self.scalars()], self.shape)
        result.dtype = dtype
        return result


def viewed(view: Callable, source: Array, *arguments: object) -> Any:
    """What a view gives: of a part of an argument, another part of it, still not read."""
    if source.held is None:
        return view(source, *arguments)
    places = Array(source.program, source.held.places, source.dtype)

    def part(array: Array) -> Array:
        return source if array is places else _part(source, array.ids, source.dtype)

    result = view(places, *arguments)
    return tuple(map(part, result)) if isinstance(result, tuple) else part(result)


def copied(source: Array, dtype: torch.dtype) -> Array | None:
    """A copy of a table, read where it is needed, which can not be written to; else None."""
    held = source.held
    if held is None or not held.shared or held.places.size <= MOST_CHOICES or dtype in BITS:
        return None
    return _part(source, held.places, dtype)


def _part(source: Array, places: np.ndarray, dtype: torch.dtype) -> Array:
    assert source.held is not None
    held = source.held._replace(places=places)
    return Array(source.program, None, dtype, shape=places.shape, held=held)


def _axis(array: Array, dim: int) -> int:
    return dim % max(len(array.shape), 1)


def _select(a: Array, dim: int, index: int) -> Array:
    axis = _axis(a, dim)
    index = index % a.shape[axis]
    cut = a.ids[(slice(None),) * axis + (slice(index, index + 1),)]
    return a.view(cut.squeeze(axis))


def _slice(a: Array, dim: int = 0, start=None, end=None, step: int = 1) -> Array:
    return a.view(a.ids[(slice(None),) * _axis(a, dim) + (slice(start, end, step),)])


def _reshape(a: Array, shape: Sequence[int]) -> Array:
    return a.view(a.ids.reshape(tuple(shape)))


def _expand(a: Array, shape: Sequence[int], implicit: bool = False) -> Array:
    missing = len(shape) - len(a.shape)
    full = [a.shape[i - missing] if size == -1 else size for i, size in enumerate(shape)]
    return a.view(np.broadcast_to(a.ids, full))


def _squeeze(a: Array, dims: int | Sequence[int] | None = None) -> Array:
    if dims is None:
        return a.view(a.ids.squeeze())
    dims = [dims] if isinstance(dims, int) else dims
    axes = tuple(_axis(a, d) for d in dims)
    return a.view(a.ids.squeeze(tuple(axis for axis in axes if a.shape[axis] == 1)))


def _transpose(a: Array, first: int, second: int) -> Array:
    return a.view(a.ids.swapaxes(first, second)) if a.shape else a


def _split(a: Array, size: int, dim: int = 0) -> tuple[Array, ...]:
    length = a.shape[_axis(a, dim)]
    return tuple(_slice(a, dim, start, start + size) for start in range(0, length, size))


def _split_sizes(a: Array, sizes: Sequence[int], dim: int = 0) -> tuple[Array, ...]:
    ends = list(itertools.accumulate(sizes))
    return tuple(_slice(a, dim, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _diagonal(a: Array, offset: int = 0, first: int = 0, second: int = 1) -> Array:
    # numpy's diagonal is read-only, and so refuses to be written through.
    return a.view(np.diagonal(a.ids, offset, first, second))


VIEWS: dict[str, Callable] = {
    "view.default": _reshape,
    "_unsafe_view.default": _reshape,
    "_reshape_alias.default": lambda a, shape, stride: _reshape(a, shape),
    "select.int": _select,
    "slice.Tensor": _slice,
    "expand.default": _expand,
    "unsqueeze.default": lambda a, dim: a.view(np.expand_dims(a.ids, dim % (len(a.shape) + 1))),
    "squeeze.default": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "permute.default": lambda a, dims: a.view(a.ids.transpose(dims)),
    "transpose.int": _transpose,
    "t.default": lambda a: a.view(a.ids.T),
    "numpy_T.default": lambda a: a.view(a.ids.T),
    "detach.default": lambda a: a,
    "alias.default": lambda a: a,
    "unbind.int": lambda a, dim=0: tuple(
        _select(a, dim, index) for index in range(a.shape[_axis(a, dim)])
    ),
    "split.Tensor": _split,
    "split_with_sizes.default": _split_sizes,
    "diagonal.default": _diagonal,
}


def _cat(arrays: Sequence[Array], dim: int = 0) -> Array:
    kept = [a for a in arrays if a.shape != (0,)] or list(arrays)
    return kept[0].view(np.concatenate([a.ids for a in kept], dim))


def _stack(arrays: Sequence[Array], dim: int = 0) -> Array:
    return arrays[0].view(np.stack([a.ids for a in arrays], dim))


def _select_scatter(a: Array, source: Array, dim: int, index: int) -> Array:
    result = a.view(a.ids.copy())
    _select(result, dim, index).ids[...] = source.ids
    return result


def _slice_scatter(a: Array, source: Array, dim: int = 0, start=None, end=None, step=1) -> Array:
    result = a.view(a.ids.copy())
    _slice(result, dim, start, end, step).ids[...] = source.ids
    return result


def _zeros(like: Array, shape: Sequence[int]) -> Array:
    zero = like.program.constant(0, scalar_dtype(like.dtype))
    return like.view(np.full(tuple(shape), zero, dtype=np.int64))


def _select_backward(gradient: Array, sizes: Sequence[int], dim: int, index: int) -> Array:
    return _select_scatter(_zeros(gradient, sizes), gradient, dim, index)


def _slice_backward(gradient: Array, sizes: Sequence[int], dim: int, start, end, step) -> Array:
    return _slice_scatter(_zeros(gradient, sizes), gradient, dim, start, end, step)


def _repeat(a: Array, repeats: Sequence[int]) -> Array:
    return a.view(np.tile(a.ids, repeats))


COPIES: dict[str, Callable] = {
    "cat.default": _cat,
    "stack.default": _stack,
    "clone.default": lambda a, memory_format=None: a.view(a.ids.copy()),
    "lift_fresh.default": lambda a: a,
    "lift_fresh_copy.default": lambda a: a.view(a.ids.copy()),
    "contiguous.default": lambda a, memory_format=None: a.view(a.ids.copy()),
    "flip.default": lambda a, dims: a.view(np.flip(a.ids, tuple(dims)).copy()),
    "roll.default": lambda a, shifts, dims=(): a.view(np.roll(a.ids, shifts, dims or None)),
    "repeat.default": _repeat,
    "select_scatter.default": _select_scatter,
    "slice_scatter.default": _slice_scatter,
    "select_backward.default": _select_backward,
    "slice_backward.default": _slice_backward,
}


def _along(a: Array, dims: int | Sequence[int] | None, keep: bool, combine: Callable) -> Array:
    """Each group of elements along dimensions, in order, to one number."""
    count = len(a.shape)
    dims = range(count) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    axes = tuple(sorted(d % max(count, 1) for d in dims)) if count else ()
    rest = tuple(axis for axis in range(count) if axis not in axes)
    outer = tuple(a.shape[axis] for axis in rest)
    groups = a.ids.transpose(rest + axes).reshape(int(np.prod(outer)), -1)
    values = [combine([Scalar(a.program, int(i)) for i in group]) for group in groups]
    shape = [1 if axis in axes else a.shape[axis] for axis in range(count)] if keep else outer
    return a.fresh(values, shape)


def _total(values: list[Scalar]) -> Scalar:
    return reduce(lambda a, b: a + b, values)


def _product(values: list[Scalar]) -> Scalar:
    return reduce(lambda a, b: a * b, values)


def _extreme(function: Callable) -> Callable:
    return lambda values: reduce(function, values)


def _sum(a: Array, dims=None, keep: bool = False, dtype: torch.dtype | None = None) -> Array:
    return _along(a, dims, keep, _total)


def _mean(a: Array, dims=None, keep: bool = False, dtype: torch.dtype | None = None) -> Array:
    return _along(a, dims, keep, lambda values: _total(values) / len(values))


def _variance(a: Array, dims=None, correction: float | None = None, keep: bool = False) -> Array:
    def variance(values: list[Scalar]) -> Scalar:
        mean = _total(values) / len(values)
        count = len(values) - (1 if correction is None else correction)
        return _total([(value - mean) * (value - mean) for value in values]) / count

    return _along(a, dims, keep, variance)


def _variance_and_mean(a: Array, dims=None, correction=None, keep=False) -> tuple[Array, ...]:
    return _variance(a, dims, correction, keep), _mean(a, dims, keep)


def _truth(combine: Callable) -> Callable:
    def function(a: Array, dims=None, keep: bool = False) -> Array:
        return _along(a.converted(torch.bool), dims, keep, lambda v: reduce(combine, v))

    return function


def _cumulative(a: Array, dim: int, dtype: torch.dtype | None = None) -> Array:
    axis = _axis(a, dim)
    rows = np.moveaxis(a.ids, axis, -1)
    result = np.empty_like(rows)
    for place in np.ndindex(rows.shape[:-1]):
        values = [Scalar(a.program, int(i)) for i in rows[place]]
        result[place] = [v.index for v in itertools.accumulate(values, lambda x, y: x + y)]
    return a.view(np.moveaxis(result, -1, axis))


# Reductions get their operand in the type of the result.
REDUCTIONS: dict[str, Callable] = {
    "sum.default": lambda a, dtype=None: _sum(a),
    "sum.dim_IntList": _sum,
    "mean.default": lambda a, dtype=None: _mean(a),
    "mean.dim": _mean,
    "prod.default": lambda a, dtype=None: _along(a, None, False, _product),
    "prod.dim_int": lambda a, dim, keep=False, dtype=None: _along(a, dim, keep, _product),
    "amax.default": lambda a, dims=(), keep=False: _along(
        a, list(dims) or None, keep, _extreme(maximum)
    ),
    "amin.default": lambda a, dims=(), keep=False: _along(
        a, list(dims) or None, keep, _extreme(minimum)
    ),
    "max.default": lambda a: _along(a, None, False, _extreme(maximum)),
    "min.default": lambda a: _along(a, None, False, _extreme(minimum)),
    "cumsum.default": _cumulative,
    "var.correction": _variance,
    "var_mean.correction": _variance_and_mean,
    "any.default": _truth(lambda x, y: x | y),
    "any.dim": _truth(lambda x, y: x | y),
    "any.dims": _truth(lambda x, y: x | y),
    "all.default": _truth(lambda x, y: x & y),
    "all.dim": _truth(lambda x, y: x & y),
    "all.dims": _truth(lambda x, y: x & y),
}


def _products(a: np.ndarray, b: np.ndarray, like: Array) -> np.ndarray:
    """Matrix product of two matrices of indices, summed in order."""
    result = np.empty((a.shape[0], b.shape[1]), dtype=np.int64)
    for i, j in np.ndindex(result.shape):
        terms = [
            Scalar(like.program, int(x)) * Scalar(like.program, int(y))
            for x, y in zip(a[i], b[:, j], strict=True)
        ]
        result[i, j] = _total(terms).index if terms else _zeros(like, ()).ids
    return result


def _bmm(a: Array, b: Array) -> Array:
    if not len(a.ids):
        raise UnfitError("a matrix product over an empty batch has no scalar form")
    return a.view(np.stack([_products(x, y, a) for x, y in zip(a.ids, b.ids, strict=True)]))


MATRIX_PRODUCTS: dict[str, Callable] = {
    "mm.default": lambda a, b: a.view(_products(a.ids, b.ids, a)),
    "bmm.default": _bmm,
    "mv.default": lambda a, b: a.view(_products(a.ids, b.ids[:, None], a)[:, 0]),
    "dot.default": lambda a, b: a.view(_products(a.ids[None], b.ids[:, None], a)[0, 0]),
}


def filled(program: Program, shape: Sequence[int], value: float, dtype: torch.dtype) -> Array:
    """An array of one number."""
    index = program.constant(value, scalar_dtype(dtype))
    return Array(program, np.full(tuple(shape), index, dtype=np.int64), dtype)


def counted(program: Program, start: float, step: float, count: int, dtype: torch.dtype) -> Array:
    """The numbers start, start + step, and so on."""
    kind = scalar_dtype(dtype)
    values = [start + step * i for i in range(count)]
    ids = [program.constant(int(v) if kind == I64 else v, kind) for v in values]
    return Array(program, np.array(ids, dtype=np.int64).reshape(count), dtype)
