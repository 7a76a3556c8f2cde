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
from flowopt.kernels.step import Part, TracedStep

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
    """

    def __init__(
        self,
        step: TracedStep,
        inputs: Inputs,
        batch: torch.Size,
        alike: frozenset[int] | None = None,
    ):
        """See the class."""
        self.step, self.inputs, self.batch = step, inputs, batch
        self.count = batch.numel()
        self.alike = shared_places(inputs) if alike is None else alike
        self.arguments = [
            _columns(tensor, len(batch)) if lane else tensor.contiguous()
            for tensor, lane in zip(inputs.tensors, inputs.lanes, strict=True)
        ]
        # Where launches write; a slot that is not there is read from what the caller gave, which
        # stays as it was.
        self.results: dict[int, Tensor] = {}

    def start(self) -> None:
        """Fills in what follows from the state."""
        self.arguments[self.inputs.status].zero_()
        part = self.step.start
        assert part is not None
        self.results = {slot: self.arguments[slot] for slot in self.inputs.unknown}
        for tensor in self.results.values():
            touch(tensor)
        kernel = part.kernel(self.inputs.status, self.alike)
        self._launch(part, self.alike, 1)
        self.alike |= kernel.alike & self.inputs.scalars

    def refresh(self, step_size: Tensor, memory: tuple[Tensor, ...]) -> None:
        """Takes what the control says before a chunk."""
        places = (self.inputs.step_size, *self.inputs.memory)
        for place, tensor in zip(places, (step_size, *memory), strict=True):
            lane = self.inputs.lanes[place]
            column = _columns(tensor, len(self.batch)) if lane else tensor.contiguous()
            if column.data_ptr() != self.arguments[place].data_ptr():
                self.arguments[place] = column
                self.part_ways()

    def run(self, trials: int) -> int:
        """Launches the kernel; returns how many trajectories still run."""
        return self._launch(self.step.step, self.alike, trials)

    def _launch(self, part: Part, alike: frozenset[int], trials: int) -> int:
        running = self._runs()
        witness = int(running.argmax()) if self.count else 0
        if not self.count or not running[witness]:
            return 0
        source, code, _ = part.kernel(self.inputs.status, alike)
        layout = source.layout
        shared = {
            slot: self.arguments[slot].reshape(-1, self.count)[:, witness].clone()
            for slot in layout.shared
        }
        results = {}
        for slot in layout.carried:
            own = self.results.get(slot)
            fresh = own is not self.arguments[slot]
            results[slot] = torch.empty_like(self.arguments[slot]) if fresh else own
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
        for slot, tensor in results.items():
            self.arguments[slot] = tensor
        return left

    def part_ways(self) -> None:
        """Takes another kernel where trajectories have no longer in common what they had.

        Trajectories that were held at records have made different numbers of trials.
        """
        running = self._runs()
        witness = int(running.argmax())
        numbers = {place: self.arguments[place].numpy() for place in self.alike}
        self.alike = frozenset(
            place
            for place, column in numbers.items()
            if ((column == column[witness]) | ~running).all()
        )

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
            self._rows(column, self.inputs.rest(place), chosen) if lane else column
            for place, (column, lane) in enumerate(places)
        ]

    def _rows(self, column: Tensor, rest: tuple[int, ...], chosen: Tensor | None) -> Tensor:
        """The inverse of `_columns`."""
        if not rest and column.ndim == 1:
            return column.reshape(self.batch) if chosen is None else column[chosen]
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
        if inputs.lanes[place] and tensor.numel() and inputs.rest(place) == ():
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
