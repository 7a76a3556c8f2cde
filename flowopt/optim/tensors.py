"""Tensors that a kernel steps in place: where they lie, and that no two share memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowopt.errors import CompatibilityError
from flowopt.kernels.native.tensors import Places, look
from flowopt.kernels.update import Table, Update, chunks
from flowopt.optim.gradients import check_dense

# Other classes of tensors may keep their numbers elsewhere.
PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}
NOT_ALIKE = (
    "compile=True: a parameter, its gradient and its state are plain tensors of one shape and one "
    "dtype on the CPU: use compile=False, or make the optimizer after parameters have changed"
)
SHARED = "compile=True: parameters, gradients or states share memory: use compile=False"


class UnlikeError(CompatibilityError):
    """Tensors of several kinds."""


class Elements(NamedTuple):
    """Numbers of elements among all of an optimizer.

    Attributes:
        first: Of the first element of the first tensor.
        offsets: Of the first element of each tensor; None where one follows another.
    """

    first: int
    offsets: np.ndarray | None


def offsets_of(tensors: Sequence[Tensor], first: int) -> np.ndarray:
    """Numbers of the first elements of tensors that follow one another."""
    sizes = np.fromiter(map(Tensor.numel, tensors), np.int64, len(tensors))
    return first + np.cumsum(sizes) - sizes


class Tensors:
    """The tensors of a group: where they were at the last step, and what is to be stepped now."""

    def __init__(self):
        """See the class."""
        self._laid: tuple | None = None
        self._key: tuple | None = None
        self._written = b""
        self._starts = self._ends = np.empty(0, dtype=np.int64)
        self._table: Table | None = None
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._moved: Sequence[Tensor] = ()
        self._held: Sequence[list[Tensor]] = ()

    def take(self, columns: Sequence[list[Tensor]], elements: Elements, update: Update) -> None:
        """Looks where tensors lie, at every step anew; those that are not contiguous are copied.

        Args:
            columns: The variables of the flow, then the gradients.
            elements: Numbers of the tensors' elements.
            update: What will step them.

        Raises:
            UnlikeError: Tensors are not alike.
            CompatibilityError: Tensors share memory.
        """
        self._moved, self._copies = columns[0], []
        places = _places(columns, update.dtype)
        if _strided(columns, places):
            columns, self._copies = _contiguous(columns, update)
            places = _places(columns, update.dtype)
        # Addresses in the table keep no copy in memory.
        self._held = columns
        laid = places.content.tobytes(), elements.first, update.written, update.block
        if elements.offsets is not None or laid != self._laid:
            self._laid = None
            self._lay(places, elements, update)
            self._laid = laid if elements.offsets is None else None

    def _lay(self, places: Places, elements: Elements, update: Update) -> None:
        """Brings the table up to date."""
        sizes, offsets = places.counts * update.dtype.itemsize, elements.offsets
        if offsets is None:
            offsets = elements.first + np.cumsum(places.counts) - places.counts
        key = places.counts.tobytes(), offsets.tobytes(), update.written, update.block
        if self._table is None or key != self._key:
            columns = len(places.addresses)
            self._table = chunks(places.counts, offsets, columns, update)
            self._key, self._written = key, b""
        written = np.array(update.written)
        # Gradients are new at every step, what else there is seldom is.
        if (found := places.addresses[written].tobytes()) != self._written:
            self._starts, self._ends = _spans(places.addresses[written], sizes)
            self._written = found
        for read in places.addresses[~written]:
            _check_apart(self._starts, self._ends, read, sizes)
        self._table.move(places.addresses)

    def run(self, update: Update, numbers: Sequence[float | int]) -> list[float | int]:
        """One step of all tensors; returns the numbers after it."""
        assert self._table is not None
        results = update.run(self._table, numbers)
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        # Autograd is told, as by any operation in place.
        torch.autograd.graph.increment_version(self._moved)
        self._copies, self._moved, self._held = [], (), ()
        return results


def _places(columns: Sequence[list[Tensor]], dtype: torch.dtype) -> Places:
    """Where tensors lie.

    Raises:
        UnlikeError: Tensors are not alike.
    """
    plain = all(PLAIN.issuperset(map(type, column)) for column in columns)
    places = look(columns, dtype) if plain else None
    if places is None:
        check_dense(columns[-1])
        raise UnlikeError(NOT_ALIKE)
    return places


def _strided(columns: Sequence[list[Tensor]], places: Places) -> bool:
    """Whether tensors have to be copied, as their memory does not hold their numbers in order."""
    # Negative views that autograd makes step over the real parts of complex numbers, so those that
    # are contiguous have one number; gradients may come from elsewhere.
    single = np.flatnonzero(places.counts == 1).tolist()
    negative = any(map(Tensor.is_neg, columns[-1]))
    negative = negative or any(column[i].is_neg() for i in single for column in columns)
    return places.strided or negative


def _contiguous(
    columns: Sequence[list[Tensor]], update: Update
) -> tuple[list[list[Tensor]], list[tuple[Tensor, Tensor]]]:
    """Columns of contiguous tensors, and which of them are to be copied back."""
    copies, found = [], []
    for column, written in zip(columns, update.written, strict=True):
        own = [tensor.resolve_neg().contiguous() for tensor in column]
        if written:
            copies += [(t, c) for t, c in zip(column, own, strict=True) if c is not t]
        found.append(own)
    return found, copies


def _spans(addresses: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where memory that is written begins and ends, in order.

    Raises:
        CompatibilityError: Two tensors share memory.
    """
    starts = addresses.ravel()
    ends = (addresses + sizes).ravel()
    order = np.argsort(starts, kind="stable")
    order = order[ends[order] > starts[order]]
    if (starts[order][1:] < ends[order][:-1]).any():
        raise CompatibilityError(SHARED)
    return starts[order], ends[order]


def _check_apart(starts: np.ndarray, ends: np.ndarray, read: np.ndarray, sizes: np.ndarray) -> None:
    """Raises `CompatibilityError` where a tensor lies in memory that is written."""
    if len(starts):
        before = np.searchsorted(starts, read + sizes, side="left") - 1
        if ((before >= 0) & (ends[before] > read) & (sizes > 0)).any():
            raise CompatibilityError(SHARED)
