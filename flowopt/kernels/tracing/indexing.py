"""Elements of arrays at given places: known when traced, or looked up when the kernel runs.

A place that is computed is compared with the array's length first: no kernel reads outside of a
table, and a loss that would have is NaN (see `guard`), where eager torch raises IndexError.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from flowopt.kernels.program import BOOL, FOLDS, I64, Program, UnfitError
from flowopt.kernels.scalar import Scalar, scalar_dtype
from flowopt.kernels.tracing.arrays import MOST_CHOICES, VIEWS, Array, viewed
from flowopt.kernels.tracing.bounds import Bounds, bounds
from flowopt.kernels.tracing.traced import Argument

# One entry per element of a result: its place on an axis, a number or a value of the program.
Column = np.ndarray


class Indexing:
    """The operations that take or put elements, for one trace.

    Args:
        program: The values.
        arguments: Of the program, in the making.
        captured: Tensors that are closed over, in the making.
        inputs: How many arguments are given, not closed over.

    Attributes:
        baked: Positions in `captured` and contents of whole numbers used as indices.
        inside: Bools, one per place looked up since they were last asked for: whether it exists.
    """

    def __init__(
        self,
        program: Program,
        arguments: Sequence[Argument],
        captured: Mapping[int, Tensor],
        inputs: int,
    ):
        """See the class."""
        self.program, self.arguments, self.captured = program, arguments, captured
        self.inputs = inputs
        self.baked: dict[int, Tensor] = {}
        self.inside: list[int] = []
        self._known_bounds: dict[int, Bounds] = {}
        self.rows: dict[str, Callable] = {
            "index.Tensor": self._index,
            "index_select.default": lambda a, dim, index: self._index(
                a, [None] * (dim % max(len(a.shape), 1)) + [index], negative=False
            ),
            "embedding.default": lambda a, index, *_: self._index(a, [index], negative=False),
            "take.default": lambda a, index: self._index(
                viewed(VIEWS["view.default"], a, (-1,)), [index]
            ),
            "gather.default": self._gather,
            "scatter_add.default": self._scatter_add,
            "index_put.default": self._put,
        }

    def all_inside(self) -> int:
        """Whether all places looked up since the last call exist."""
        result = self.program.constant(True, BOOL)
        for bool_ in self.inside:
            result = self.program.emit("and", BOOL, result, bool_)
        self.inside.clear()
        return result

    def _index(
        self, source: Array, indices: Sequence[Array | None], *, negative: bool = True
    ) -> Array:
        """source[indices]."""
        if all(index is None or self._fixed(index) for index in indices):
            known = tuple(slice(None) if i is None else self._known(i) for i in indices)
            return source.view(source.ids[known])
        if any(index is not None and index.dtype == torch.bool for index in indices):
            raise UnfitError("it takes elements by a mask that depends on the state")
        return self._looked_up(source, _columns(source.shape, indices), negative)

    def _gather(self, source: Array, dim: int, index: Array, sparse: bool = False) -> Array:
        columns: list[Column] = list(np.indices(index.shape))
        axis = dim % max(len(source.shape), 1)
        if self._fixed(index):
            columns[axis] = self._known(index)
            return source.view(source.ids[tuple(columns)])
        columns[axis] = _scalars(index)
        return self._looked_up(source, columns, negative=False)

    def _scatter_add(self, source: Array, dim: int, index: Array, added: Array) -> Array:
        axis, wanted = dim % max(len(source.shape), 1), _scalars(index)
        length = source.shape[axis]
        _check_few(length)
        result = source.ids.copy()
        for where in np.ndindex(index.shape):
            place, term = wanted.item(where), Scalar(self.program, int(added.ids[where]))
            self.inside.append(self._exists(place, length).index)
            for number in range(length):
                target = (*where[:axis], number, *where[axis + 1 :])
                before = Scalar(self.program, int(result[target]))
                result[target] = place.equals(number).where(before + term, before).index
        return source.view(result)

    def _put(
        self,
        source: Array,
        indices: Sequence[Array | None],
        added: Array,
        accumulate: bool = False,
    ) -> Array:
        """A copy with source[indices] = added, or += added."""
        result = source.ids.copy()
        known = tuple(slice(None) if i is None else self._known(i) for i in indices)
        target = np.arange(result.size).reshape(result.shape)[known]
        new = np.broadcast_to(added.ids, target.shape).ravel()
        flat = result.reshape(-1)
        for where, index in zip(target.ravel(), new, strict=True):
            value = Scalar(self.program, int(index))
            if accumulate:
                value = Scalar(self.program, int(flat[where])) + value
            flat[where] = value.index
        return source.view(result)

    def _looked_up(self, source: Array, columns: Sequence[Column], negative: bool) -> Array:
        """Elements at computed places: loads from a table, else one of all by comparison."""
        if 0 in source.shape:
            raise UnfitError("it looks up an element of an empty tensor")
        steps = _steps(source)
        found = np.empty(columns[0].shape, dtype=np.int64)
        for where in np.ndindex(found.shape):
            places = [column.item(where) for column in columns]
            checked = Scalar(self.program, self.program.constant(True, BOOL))
            for axis, place in enumerate(places):
                if isinstance(place, Scalar):
                    length = self._length(source, axis)
                    if negative and self._bounds(place).low < 0:
                        place = (place < 0).where(place + length, place)
                    places[axis] = place
                    checked = checked & self._exists(place, length)
            if steps is None:
                value = _chosen(source, places)
            else:
                value = self._loaded(source, steps, places, checked)
            found[where] = value.index
            self._remember(source, found, where, checked)
        return source.view(found)

    def _remember(self, source: Array, found: np.ndarray, where: tuple, checked: Scalar) -> None:
        """Has a place checked: at once in a table that a control made, else with the loss."""
        if self._grows(source):
            value = Scalar(self.program, int(found[where]))
            found[where] = checked.where(value, value.like(float("nan"))).index
        else:
            self.inside.append(checked.index)

    def _loaded(
        self, table: Array, steps: tuple[int, ...], places: list[Scalar | int], checked: Scalar
    ) -> Scalar:
        assert table.held is not None
        first = int(table.held.places.flat[0])
        offset = sum((place * step for place, step in zip(places, steps, strict=True)), start=first)
        assert isinstance(offset, Scalar)
        safe = checked.where(offset, first)
        kind = scalar_dtype(table.held.dtype)
        found = self.program.emit("gather", kind, safe.index, data=table.held.slot)
        return Scalar(self.program, found).to(scalar_dtype(table.dtype))

    def _exists(self, place: Scalar, length: Scalar | int) -> Scalar:
        """Whether a place lies on an axis; a constant where its formula says so."""
        low, high = self._bounds(place)
        least = 0 if isinstance(length, Scalar) else length
        true = Scalar(self.program, self.program.constant(True, BOOL))
        return (true if low >= 0 else place >= 0) & (true if high < least else place < length)

    def _bounds(self, place: Scalar) -> Bounds:
        return bounds(self.program, place.index, self._known_bounds)

    def _length(self, source: Array, axis: int) -> Scalar | int:
        if self._grows(source):
            return Scalar(self.program, self.program.emit("length", I64, data=source.slot))
        return int(source.shape[axis])

    def _grows(self, source: Array) -> bool:
        """Whether it is a table that is given, whose length is that of the launch."""
        shared = source.held is not None and source.held.shared
        return (
            shared
            and source.slot is not None
            and source.slot < self.inputs
            and (len(source.shape) == 1)
        )

    def _fixed(self, index: Array) -> bool:
        """Whether an index is known when traced: computed from whole numbers closed over."""
        nodes = (self.program.nodes[i] for i in self.program.needed(index.ids.ravel().tolist()))
        return all(
            node.data[0] >= self.inputs and node.dtype in (I64, BOOL)
            if node.op == "input"
            else node.op in ("constant", "convert", *FOLDS)
            for node in nodes
        )

    def _known(self, index: Array) -> np.ndarray:
        """The numbers of an index; what they are computed from must not change from now on."""
        if not self._fixed(index):
            raise UnfitError("it changes elements at places that depend on the state")
        program, captured = self.program, list(self.captured.values())
        roots = index.ids.ravel().tolist()
        numbers = {}
        for i in program.needed(roots):
            node = program.nodes[i]
            if node.op == "input":
                place, element = node.data[0] - self.inputs, node.data[1]
                tensor = captured[place].detach()
                self.baked[place] = tensor.clone()
                number = tensor.flatten()[element].item()
                numbers[i] = program.constant(number, node.dtype)
        kind = bool if index.dtype == torch.bool else np.int64
        found = [program.value(i) for i in program.rewrite(roots, numbers)]
        return np.array(found, dtype=kind).reshape(index.shape)


def _scalars(index: Array) -> Column:
    column = np.empty(index.shape, dtype=object)
    column.reshape(-1)[:] = index.scalars()
    return column


def _columns(shape: Sequence[int], indices: Sequence[Array | None]) -> list[Column]:
    """Places on every axis of the elements of source[indices], laid out as numpy and torch do."""
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    axes = [*given]
    joined = np.broadcast_shapes(*(given[axis].shape for axis in axes))
    count = int(np.prod(joined))
    # A stand-in for the source: all indices name one long axis, and what they take are its places.
    lengths = [
        count if axis == axes[0] else 1 if axis in axes else n for axis, n in enumerate(shape)
    ]
    numbers = np.arange(count).reshape(joined)
    key = tuple(
        slice(None) if axis not in given else numbers if axis == axes[0] else 0 * numbers
        for axis in range(len(shape))
    )
    columns: list[Column] = [
        np.asarray(np.broadcast_to(places, lengths)[key])
        for places in np.indices(lengths, sparse=True)
    ]
    number = columns[axes[0]]
    for axis in axes:
        flat = np.broadcast_to(_scalars(given[axis]), joined).reshape(-1)
        columns[axis] = np.asarray(flat[number], dtype=object)
    return columns


def _steps(source: Array) -> tuple[int, ...] | None:
    """Distance in its argument from an element to the next, by axes; None for no shared table."""
    if source.held is None or not source.held.shared:
        return None
    places = source.held.places
    steps = tuple(
        int(places.take(1, axis).flat[0] - places.flat[0]) if length > 1 else 0
        for axis, length in enumerate(places.shape)
    )
    grid = np.indices(places.shape, sparse=True)
    expected = sum((g * step for g, step in zip(grid, steps, strict=True)), start=places.flat[0])
    return steps if np.array_equal(np.broadcast_to(expected, places.shape), places) else None


def _chosen(source: Array, places: Sequence[Scalar | int]) -> Scalar:
    """One of the elements of a line, or of a plane of them."""
    computed = [(n, place) for n, place in enumerate(places) if isinstance(place, Scalar)]
    key = tuple(slice(None) if isinstance(place, Scalar) else place for place in places)
    choices = source.ids[key]
    _check_few(choices.size)
    _, wanted = computed[0]
    for axis, place in computed[1:]:
        wanted = wanted * source.shape[axis] + place
    value = Scalar(source.program, int(choices.flat[0]))
    for number, other in enumerate(choices.flat[1:], start=1):
        value = wanted.equals(number).where(Scalar(source.program, int(other)), value)
    return value


def _check_few(count: int) -> None:
    if count > MOST_CHOICES:
        raise UnfitError(f"it takes one of {count} elements at a place that is not known before")
