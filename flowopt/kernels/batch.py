"""Trajectories in memory as a kernel wants them, and launches of its code on them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowopt.core.trajectory import Status
from flowopt.errors import KernelMemoryError
from flowopt.kernels.inputs import Inputs, unflattened
from flowopt.kernels.native.launch import pointers, run_blocks
from flowopt.kernels.step import Kernel, Kind, Part, TracedStep

# Starts at which a kernel is compared with eager torch before it is used.
CHECKED_STARTS = 16
# Bytes of a page, at least, and of memory that is rarely left from the call before.
PAGE, LARGE = 4096, 1 << 20
# A run frees about so many times its carry: what it starts from and what it computes.
FREED = 4
# glibc's limit for what it learns, but for its own few bytes.
MOST_KEPT = (1 << 25) - (1 << 16)


class Batch:
    """Memory and code of one batch.

    Args:
        step: What is launched.
        inputs: Where the trajectories are.
        batch: Their shape.
        alike: Places that they have in common; looked for where not given.
        single: Those of them that lie in memory as one number; looked for where not given.
    """

    def __init__(
        self,
        step: TracedStep,
        inputs: Inputs,
        batch: torch.Size,
        alike: frozenset[int] | None = None,
        single: frozenset[int] | None = None,
    ):
        """See the class."""
        self.step, self.inputs, self.batch = step, inputs, batch
        self.count = batch.numel()
        self.alike = shared_places(inputs) if alike is None else alike
        # What is found to be alike is so for all trajectories, also those that have ended.
        self.single = self.alike if single is None else single
        self.arguments = [
            _number(tensor) if place in self.single else self._column(place, tensor)
            for place, tensor in enumerate(inputs.tensors)
        ]
        # Where launches write; a slot that is not there is read from what the caller gave, which
        # stays as it was.
        self.results: dict[int, Tensor] = {}

    def start(self) -> None:
        """Fills in what follows from the state."""
        self.arguments[self.inputs.status].zero_()
        part = self.step.start
        assert part is not None
        merging = self.inputs.unknown & self.inputs.scalars
        kernel = part.kernel(self.inputs.status, Kind(self.alike, self.single, merging))
        for slot in kernel.merged:
            self.arguments[slot] = self.arguments[slot].new_empty(1)
        self.results = {slot: self.arguments[slot] for slot in self.inputs.unknown}
        for tensor in self.results.values():
            touch(tensor)
        self._launch(part, kernel, 1)
        self.alike |= kernel.alike & self.inputs.scalars
        self.single |= kernel.merged

    def refresh(self, step_size: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Takes what the control says before a chunk."""
        places = (self.inputs.step_size, *self.inputs.memory)
        for place, tensor in zip(places, (step_size, *memory), strict=True):
            one = place in self.single and is_one(tensor)
            column = _number(tensor) if one else self._column(place, tensor)
            if column.data_ptr() != self.arguments[place].data_ptr():
                self.arguments[place] = column
                self.part_ways()

    def run(self, trials: int) -> int:
        """Launches the kernel; returns how many trajectories still run."""
        part = self.step.step
        if self.single and not part.small:
            self._spread()
        kernel = part.kernel(self.inputs.status, Kind(self.alike, self.single))
        return self._launch(part, kernel, trials)

    def _launch(self, part: Part, kernel: Kernel, trials: int) -> int:
        running = self._runs()
        witness = int(running.argmax()) if self.count else 0
        if not self.count or not running[witness]:
            return 0
        source, code = kernel.source, kernel.code
        layout = source.layout
        shared = {slot: self._of_one(slot, witness) for slot in layout.shared}
        results = {slot: self._result(slot, kernel) for slot in layout.carried}
        # Kept until the launch is over: of a strided tensor it is a copy.
        captured = [t.detach().contiguous() for t in part.traced.captured]
        addresses, sizes = pointers(layout, [*self.arguments, *captured], results, shared)
        left = run_blocks(
            code, addresses, sizes, trials=trials, count=self.count, lanes=source.lanes
        )
        if left < 0:
            raise KernelMemoryError(
                f"there is no memory for a kernel: every thread takes {source.scratch} bytes; use "
                "fewer threads (torch.set_num_threads), or compile=False"
            )
        self.results |= results
        self.single -= results.keys() - kernel.merged
        for slot, tensor in results.items():
            self.arguments[slot] = tensor
        return left

    def _result(self, slot: int, kernel: Kernel) -> Tensor:
        """Where a launch writes: over what the launch before wrote, else to memory of its own."""
        argument = self.arguments[slot]
        if slot in self.single and slot not in kernel.merged:
            return argument.new_empty(self.count)
        return argument if self.results.get(slot) is argument else torch.empty_like(argument)

    def part_ways(self) -> None:
        """Takes another kernel where trajectories have no longer in common what they had.

        Trajectories that were held at records have made different numbers of trials.
        """
        running = self._runs()
        witness = int(running.argmax())
        self.single = frozenset(p for p in self.single if self.arguments[p].numel() == 1)
        numbers = {place: self.arguments[place].numpy() for place in self.alike - self.single}
        self.alike = self.single | {
            place
            for place, column in numbers.items()
            if ((column == column[witness]) | ~running).all()
        }

    def _runs(self) -> np.ndarray:
        """Which trajectories run."""
        return self.arguments[self.inputs.status].numpy() == int(Status.RUNNING)

    def running(self) -> np.ndarray:
        """Indices of the trajectories that run."""
        return np.flatnonzero(self._runs())

    def carry(self) -> Any:
        """The carry with the batch's own shape."""
        tensors = self._tensors(self.arguments[: self.inputs.carried], None)
        return unflattened(tensors, self.inputs.carry_form)

    def carried(self, chosen: Tensor) -> list[Tensor]:
        """The carry of some of the trajectories, as flat tensors."""
        return self._tensors(self.arguments[: self.inputs.carried], chosen)

    def some(self, chosen: Tensor) -> Inputs:
        """What some of the trajectories start the next step from."""
        return self.inputs._replace(tensors=self._tensors(self.arguments, chosen))

    def _tensors(self, columns: Sequence[Tensor], chosen: Tensor | None) -> list[Tensor]:
        places = zip(columns, self.inputs.lanes, strict=False)
        return [
            self._rows(column, place, chosen) if lane else column
            for place, (column, lane) in enumerate(places)
        ]

    def _column(self, place: int, tensor: Tensor) -> Tensor:
        """A tensor in memory as kernels want it."""
        lane = self.inputs.lanes[place]
        return _columns(tensor, len(self.batch)) if lane else tensor.contiguous()

    def _spread(self) -> None:
        """Gives every trajectory a number of its own."""
        for place in self.single:
            self.arguments[place] = self.arguments[place].expand(self.count).contiguous()
        self.single = frozenset()

    def _of_one(self, place: int, witness: int) -> Tensor:
        """The numbers of one trajectory."""
        column = self.arguments[place]
        if place in self.single:
            return column.clone()
        return column.reshape(-1, self.count)[:, witness].clone()

    def _rows(self, column: Tensor, place: int, chosen: Tensor | None) -> Tensor:
        """The inverse of `_column`."""
        if place in self.single:
            batch = self.batch if chosen is None else chosen.shape
            return column.reshape(()).expand(batch)
        rest = self.inputs.rest(place)
        if not rest and column.ndim == 1:
            if chosen is not None:
                return column[chosen]
            return column if len(self.batch) == 1 else column.reshape(self.batch)
        batch = tuple(self.batch)
        if chosen is not None:
            batch = (len(chosen),)
            column = column.reshape(-1, self.count)[:, chosen]
        if rest:
            column = column.reshape(-1, math.prod(batch)).t()
        return column.reshape((*batch, *rest))


def _columns(tensor: Tensor, batch_dimensions: int) -> Tensor:
    """(*batch, *rest) as struct of arrays, (rest…, count) in memory."""
    if tensor.ndim == batch_dimensions == 1:
        return tensor.contiguous()
    rest = tensor.shape[batch_dimensions:]
    if rest.numel() == 1:
        return tensor.reshape(-1).contiguous()
    return tensor.reshape(-1, rest.numel()).t().contiguous()


def is_one(tensor: Tensor) -> bool:
    """Whether all of its elements are one number in memory."""
    return tensor.numel() == 1 or not any(tensor.stride())


def _number(tensor: Tensor) -> Tensor:
    """The first of equal numbers, (1,)."""
    return tensor[(0,) * tensor.ndim].reshape(1)


def keep_pages(tensors: Sequence[Tensor]) -> None:
    """Lets the next run have the memory that this one frees, without a fault for every page.

    glibc gives memory back to the system beyond a threshold that follows the largest block freed so
    far, and the pages of an ensemble fault in again at every run: that can cost as much as a
    hundred steps. One block of the size of them all, never touched, raises the threshold.
    """
    whole = FREED * sum(tensor.nbytes for tensor in tensors)
    np.empty(min(whole, MOST_KEPT), dtype=np.uint8)


def touch(tensor: Tensor) -> None:
    """Writes once to every page of much memory that is to be filled.

    A kernel loads a lane before it stores it. A page that is read first is mapped twice: to the
    system's page of zeros, then to one of its own.
    """
    if tensor.nbytes >= LARGE:
        tensor.view(-1)[:: PAGE // tensor.element_size()] = 0


def shared_places(inputs: Inputs) -> frozenset[int]:
    """Places whose numbers are known and the same for all trajectories."""
    found = set()
    for place in inputs.scalars - inputs.unknown:
        tensor = inputs.tensors[place]
        if not inputs.lanes[place] or not tensor.numel() or inputs.rest(place) != ():
            continue
        if is_one(tensor):
            found.add(place)
        else:
            # numpy: threads would cost more than they gain.
            numbers = tensor.numpy().ravel()
            if (numbers == numbers[0]).all():
                found.add(place)
    return frozenset(found)


@lru_cache(maxsize=16)
def spread(count: int) -> Tensor:
    """Up to 16 of so many places, evenly."""
    places = np.linspace(0, count - 1, min(CHECKED_STARTS, count))
    return torch.from_numpy(places.round().astype(np.int64))
