"""Tensors that a kernel steps in place: where they lie, and that no two share memory."""

import sys
from collections.abc import Sequence
from operator import is_
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowopt.core.noise import PhiloxNoise
from flowopt.core.shards import Shards, summed
from flowopt.errors import CompatibilityError
from flowopt.kernels.native.memory.spans import Spans
from flowopt.kernels.native.memory.tensors import Places, look
from flowopt.kernels.native.memory.track import Track
from flowopt.kernels.update import Table, Update, chunks
from flowopt.optim.distributed.parts import any_distributed, layouts_of, shards_of
from flowopt.optim.gradients import check_dense, gradient_of, gradients_of

NOT_ALIKE = (
    "compile=True: a parameter, its gradient and its state are plain tensors of one shape and one "
    "dtype on the CPU: use compile=False or, where parameters have changed their dtype since, "
    "optimizer.load_state_dict(optimizer.state_dict())"
)
SHARED = "compile=True: parameters, gradients or states share memory: use compile=False"


class UnlikeError(CompatibilityError):
    """Tensors of several kinds."""


class Elements(NamedTuple):
    """Numbers of elements among all of an optimizer.

    Attributes:
        first: Of the first element of the first tensor.
        offsets: Of the first element of each tensor; None where one follows another.
        wholes: The same of whole tensors, where processes hold parts of them.
        shards: What other processes hold of each tensor, there.
        rows: How many rows of a whole tensor each is, and their distance there, (tensor, 2); None
            where elements follow one another.
    """

    first: int
    offsets: np.ndarray | None
    wholes: np.ndarray | None = None
    shards: Shards | None = None
    rows: np.ndarray | None = None

    def of(self, chosen: Sequence[int], tensors: Sequence[Tensor]) -> "Elements":
        """The numbers of some of the tensors."""
        offsets = offsets_of(tensors, self.first) if self.offsets is None else self.offsets
        wholes = None if self.wholes is None else self.wholes[chosen]
        shards = None if self.shards is None else tuple(self.shards[i] for i in chosen)
        rows = None if self.rows is None else self.rows[chosen]
        return Elements(self.first, offsets[chosen], wholes, shards, rows)


def offsets_of(tensors: Sequence[Tensor], first: int) -> np.ndarray:
    """Numbers of the first elements of tensors that follow one another."""
    sizes = np.fromiter(map(Tensor.numel, tensors), np.int64, len(tensors))
    if any(map(Tensor.is_complex, tensors)):
        sizes *= [2 if tensor.is_complex() else 1 for tensor in tensors]
    return first + np.cumsum(sizes) - sizes


# Of flows that draw nothing.
SILENCE = PhiloxNoise(torch.tensor(0), torch.tensor(0), ())


def elements_of(parameters: Sequence[Tensor]) -> int:
    """How many numbers parameters are, in all processes; complex elements count twice."""
    sizes = map(Tensor.numel, parameters)
    if any(map(Tensor.is_complex, parameters)):
        return sum(size * (1 + p.is_complex()) for size, p in zip(sizes, parameters, strict=True))
    return sum(sizes)


def moving_of(
    parameters: Sequence[Tensor], first: int, plain: bool
) -> tuple[list[Tensor], list[Tensor], Elements] | None:
    """The parameters of a group that have a gradient, these gradients, and numbers of elements.

    Args:
        parameters: Of the group; users may have made their list another sequence.
        first: Number of its first element.
        plain: Whether all are plain real tensors.

    Returns:
        None where there are none.
    """
    parameters = parameters if isinstance(parameters, list) else list(parameters)
    gradients = list(map(gradient_of, parameters))
    moving = [gradient for gradient in gradients if gradient is not None]
    if not moving:
        return None
    if plain and len(moving) == len(gradients):
        return parameters, moving, Elements(first, None)
    chosen = [i for i, gradient in enumerate(gradients) if gradient is not None]
    wholes = offsets_of(parameters, first)[chosen]
    parameters = [parameters[i] for i in chosen]
    if not any_distributed(parameters):
        return parameters, moving, Elements(int(wholes[0]), wholes)
    layouts, shards = layouts_of(parameters), shards_of(parameters)
    rows = layouts[:, 1:] if (layouts[:, 1] > 1).any() else None
    elements = Elements(int(wholes[0]), wholes + layouts[:, 0], wholes, shards, rows)
    return parameters, gradients_of(parameters), elements


def noise_of(seed: int, elements: Elements, parameters: Sequence[Tensor]) -> PhiloxNoise:
    """The noise of parameters whose elements have these numbers."""
    offsets, wholes = elements.offsets, elements.wholes
    if offsets is None:
        offsets = offsets_of(parameters, elements.first)
    wholes = None if wholes is None else tuple(wholes.tolist())
    rows = None if elements.rows is None else tuple(map(tuple, elements.rows.tolist()))
    seeds = torch.tensor(seed % 2**63)
    return PhiloxNoise(seeds, torch.tensor(0), tuple(offsets.tolist()), wholes, rows)


class Tensors:
    """The tensors of a group: where they were at the last step, and what is to be stepped now."""

    def __init__(self):
        """See the class."""
        self._laid: tuple | None = None
        self._key: tuple | None = None
        self._written: bytes | None = None
        self._spans = Spans(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        self._sizes = np.empty(0, dtype=np.int64)
        self._table: Table | None = None
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._moved: Sequence[Tensor] = ()
        self._held: Sequence[list[Tensor]] = ()
        self._shards: Shards = ()
        self._track: Track | None = None

    def take(self, columns: Sequence[list[Tensor]], elements: Elements, update: Update) -> None:
        """Looks where tensors lie, at every step anew; those that are not contiguous are copied.

        Args:
            columns: The variables of the flow, then the gradients.
            elements: Numbers of the tensors' elements, all of them shared by the same processes.
            update: What will step them.

        Raises:
            UnlikeError: Tensors are not alike.
            CompatibilityError: Tensors share memory.
        """
        self._moved, self._copies, self._track = columns[0], [], None
        self._shards = (elements.shards or ())[:1]
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
        addresses, counts, offsets = places.addresses, places.counts, elements.offsets
        if elements.rows is not None and update.block > 1:
            # Its noise is that of elements which follow one another.
            addresses, counts, offsets = _by_rows(places, elements, update.dtype.itemsize)
        known = elements.first if offsets is None else offsets.tobytes()
        key = counts.tobytes(), known, update.written, update.block
        if self._table is None or key != self._key:
            if offsets is None:
                offsets = elements.first + np.cumsum(counts) - counts
            self._table = chunks(counts, offsets, len(addresses), update)
            self._sizes = counts * update.dtype.itemsize
            self._key, self._written = key, None
        # Gradients are new at every step, what else there is seldom is.
        written = [addresses[i] for i in update.writes]
        if (found := b"".join(written)) != self._written:
            self._spans = Spans(addresses[list(update.writes)], self._sizes)
            self._written = found
        spans = self._spans
        if not (
            spans.apart and all(spans.free_of(addresses[i], self._sizes) for i in update.reads)
        ):
            raise CompatibilityError(SHARED)
        self._table.move(addresses)

    def remember(self, update: Update) -> bool:
        """Gets ready to follow what was taken last; whether that is possible."""
        laid, table, columns = self._laid, self._table, len(update.written)
        if laid is None or table is None or self._shards or not Track.is_known():
            return False
        if update.reads != (columns - 1,):
            return False
        content = np.frombuffer(laid[0], dtype=np.int64).reshape(columns + 1, -1)
        parts = table.owner, table.shift, table.rows
        self._track = Track(content, update.dtype, parts, self._sizes, self._spans)
        # What is followed is laid elsewhere.
        self._laid = None
        return True

    def follow(self, variables: Sequence[list[Tensor]]) -> Sequence[list[Tensor]] | None:
        """Takes the same variables again, and the gradients of the first, wherever those lie.

        Returns:
            What is to be held until it is stepped; None if anything else has changed: `take` is to
            be called.
        """
        if self._track is None:
            return None
        if len(sys._current_frames()) == 1:
            return variables if self._track.follow(variables) else None
        # Another thread may drop gradients before they are read, as zero_grad does.
        gradients = list(map(gradient_of, variables[0]))
        known = self._track.follow(variables)
        same = known and all(map(is_, map(gradient_of, variables[0]), gradients))
        return [*variables, gradients] if same else None

    def rerun(self, update: Update, numbers: Sequence[float | int]) -> list[float | int]:
        """One step of what was followed; returns the numbers after it."""
        assert self._table is not None and self._track is not None
        self._track.tell()
        return update.run(self._table, numbers)

    def totals(
        self, update: Update, place: int, numbers: Sequence[float | int], sums: Sequence[float]
    ) -> list[float]:
        """What a pass of an update sums over all tensors, in all processes, given those before."""
        assert self._table is not None
        here = update.totals(self._table, place, numbers, sums)
        if not self._shards:
            return here
        return summed([torch.tensor(here, dtype=torch.float64)], self._shards).tolist()

    def run(
        self, update: Update, numbers: Sequence[float | int], sums: Sequence[float] = ()
    ) -> list[float | int]:
        """One step of all tensors; returns the numbers after it."""
        assert self._table is not None
        results = update.run(self._table, numbers, sums)
        for tensor, copy in self._copies:
            tensor.copy_(copy)
        # Autograd is told, as by any operation in place.
        torch.autograd.graph.increment_version(self._moved)
        self._copies, self._moved, self._held = [], (), ()
        return results


def _by_rows(
    places: Places, elements: Elements, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses, counts and numbers of the first elements of the rows of tensors, one by one."""
    assert elements.offsets is not None and elements.rows is not None
    rows, distances = elements.rows.T
    owner = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows, rows)
    counts = (places.counts // rows)[owner]
    addresses = np.ascontiguousarray(places.addresses[:, owner]) + row * counts * size
    return addresses, counts, elements.offsets[owner] + row * distances[owner]


def _places(columns: Sequence[list[Tensor]], dtype: torch.dtype) -> Places:
    """Where tensors lie.

    Raises:
        UnlikeError: Tensors are not alike.
    """
    places = look(columns, dtype)
    if places is None:
        check_dense(columns[-1])
        raise UnlikeError(NOT_ALIKE)
    return places


def _strided(columns: Sequence[list[Tensor]], places: Places) -> bool:
    """Whether tensors have to be copied, as their memory does not hold their numbers in order."""
    if places.strided or any(map(Tensor.is_neg, columns[-1])):
        return True
    # Negative views that autograd makes step over the real parts of complex numbers, so those that
    # are contiguous have one number; gradients may come from elsewhere.
    single = np.flatnonzero(places.counts == 1).tolist() if places.single else []
    return any(column[i].is_neg() for i in single for column in columns)


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
