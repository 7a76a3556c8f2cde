"""Elements of arrays at given places: known when traced, or looked up in a table at each step."""

from collections.abc import Callable, Sequence

import numpy as np

from flowopt.kernels.program import UnfitError
from flowopt.kernels.scalar import Scalar, scalar_dtype
from flowopt.kernels.tracing.arrays import Array

# Elements among which one is chosen by comparison with each place.
MOST_CHOICES = 64

Known = Callable[[Array], np.ndarray]


def gather(source: Array, dim: int, index: Array, known: Known) -> Array:
    """torch.gather at known places."""
    places = np.indices(index.shape)
    places[dim % len(source.shape)] = known(index)
    return source.view(source.ids[tuple(places)])


def choose(source: Array, dim: int, index: Array) -> Array:
    """torch.gather where the places are known when the kernel runs: one of all by comparison."""
    axis = dim % len(source.shape)
    _check_few(source.shape[axis])
    result = np.empty(index.shape, dtype=np.int64)
    for place in np.ndindex(index.shape):
        wanted = Scalar(source.program, int(index.ids[place]))
        line = source.ids[(*place[:axis], slice(None), *place[axis + 1 :])]
        value = Scalar(source.program, int(line[0]))
        for number, other in enumerate(line[1:], start=1):
            value = wanted.equals(number).where(Scalar(source.program, int(other)), value)
        result[place] = value.index
    return source.view(result)


def add_chosen(source: Array, dim: int, index: Array, added: Array) -> Array:
    """torch.scatter_add, where the places are known when the kernel runs."""
    axis = dim % len(source.shape)
    _check_few(source.shape[axis])
    result = source.ids.copy()
    for place in np.ndindex(index.shape):
        wanted = Scalar(source.program, int(index.ids[place]))
        term = Scalar(source.program, int(added.ids[place]))
        for where in range(source.shape[axis]):
            target = (*place[:axis], where, *place[axis + 1 :])
            before = Scalar(source.program, int(result[target]))
            result[target] = wanted.equals(where).where(before + term, before).index
    return source.view(result)


def _check_few(count: int) -> None:
    if count > MOST_CHOICES:
        raise UnfitError(f"it takes one of {count} elements at a place that is not known before")


def take(source: Array, indices: Sequence[Array | None], known: Known) -> Array:
    """source[indices] at known places."""
    return source.view(source.ids[_places(indices, known)])


def put(
    source: Array, indices: Sequence[Array | None], added: Array, accumulate: bool, known: Known
) -> Array:
    """A copy with source[indices] = added, or += added."""
    result = source.ids.copy()
    target = np.arange(result.size).reshape(result.shape)[_places(indices, known)]
    new = np.broadcast_to(added.ids, target.shape).ravel()
    flat = result.reshape(-1)
    for where, index in zip(target.ravel(), new, strict=True):
        value = Scalar(source.program, int(index))
        if accumulate:
            value = Scalar(source.program, int(flat[where])) + value
        flat[where] = value.index
    return source.view(result)


def look_up(table: Array, indices: Sequence[Array]) -> Array:
    """Numbers of an argument at places that are computed; its length is that of the launch."""
    if len(table.shape) != len(indices):
        raise UnfitError("only single numbers can be looked up in a table at places that vary")
    shape = np.broadcast_shapes(*(index.shape for index in indices))
    columns = [np.broadcast_to(index.ids, shape).ravel() for index in indices]
    kind, emit = scalar_dtype(table.dtype), table.program.emit
    found = [
        emit("gather", kind, *(int(i) for i in place), data=table.slot)
        for place in zip(*columns, strict=True)
    ]
    return table.view(np.array(found, dtype=np.int64).reshape(shape))


def _places(indices: Sequence[Array | None], known: Known) -> tuple:
    return tuple(slice(None) if index is None else known(index) for index in indices)
