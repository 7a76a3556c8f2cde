"""Pieces of one piece of work on several threads: torch's own, or a pool of ours.

Torch's OpenMP threads wait for more work by spinning, so threads of ours would have to share the
processors with them. GNU's OpenMP, where torch uses it, takes the work of a whole team as a
function; ours is native code too, so no thread needs Python's lock.
"""

import ctypes
import os
from _ctypes import CFuncPtr
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch

from flowopt.kernels.native.build import Code, load
from flowopt.kernels.native.machine import this_machine

# OpenMP's threads do not survive a fork.
PROCESS = os.getpid()
OPENMP_ENTRY = "GOMP_parallel"

# Each thread takes the next piece until none is left. The work is eight bytes per item: function,
# its two tables, edges of the pieces, how many pieces, its two numbers; then the next piece and
# the sum of what the pieces return, which threads change.
TEAM = """
define void @run(ptr %work) nounwind {
entry:
  %function = load ptr, ptr %work
  %first.place = getelementptr i64, ptr %work, i64 1
  %first.table = load ptr, ptr %first.place
  %second.place = getelementptr i64, ptr %work, i64 2
  %second.table = load ptr, ptr %second.place
  %edges.place = getelementptr i64, ptr %work, i64 3
  %edges = load ptr, ptr %edges.place
  %pieces.place = getelementptr i64, ptr %work, i64 4
  %pieces = load i64, ptr %pieces.place
  %trials.place = getelementptr i64, ptr %work, i64 5
  %trials = load i64, ptr %trials.place
  %count.place = getelementptr i64, ptr %work, i64 6
  %count = load i64, ptr %count.place
  %next = getelementptr i64, ptr %work, i64 7
  %total = getelementptr i64, ptr %work, i64 8
  br label %take
take:
  %piece = atomicrmw add ptr %next, i64 1 monotonic
  %some = icmp slt i64 %piece, %pieces
  br i1 %some, label %step, label %exit
step:
  %begin.place = getelementptr i64, ptr %edges, i64 %piece
  %begin = load i64, ptr %begin.place
  %end.place = getelementptr i64, ptr %begin.place, i64 1
  %end = load i64, ptr %end.place
  %left = call i64 %function(ptr %first.table, ptr %second.table, i64 %begin, i64 %end,
    i64 %trials, i64 %count)
  %before = atomicrmw add ptr %total, i64 %left monotonic
  br label %take
exit:
  ret void
}
"""


class Pieces:
    """A kernel and the pieces it is run on, as often as wanted.

    Args:
        code: Its function takes two tables, the first place of a piece and the one after its last,
            and two numbers.
        tables: Addresses.
        edges: Of the pieces, one more than there are pieces.
        numbers: The same for all pieces.
        threads: How many may work.
    """

    def __init__(
        self,
        code: Code,
        tables: tuple[int, int],
        edges: Sequence[int],
        numbers: tuple[int, int],
        threads: int,
    ):
        """See the class."""
        self._code, self._tables, self._numbers = code, tables, numbers
        self._edges, self._threads = edges, threads
        self._work: ctypes.Array | None = None

    def run(self) -> int:
        """Runs the kernel on all pieces; returns the sum of what it returns."""
        edges, threads = self._edges, self._threads
        if threads <= 1 or len(edges) <= 2:
            return self._code.run(*self._tables, edges[0], edges[-1], *self._numbers)
        parallel = _openmp() if os.getpid() == PROCESS else None
        if parallel is None:
            return _by_pool(self._code, self._tables, edges, self._numbers, threads)
        if self._work is None:
            self._places = (ctypes.c_int64 * len(edges))(*edges)
            self._entry = ctypes.cast(_team().run, ctypes.c_void_p)
            function = ctypes.cast(self._code.run, ctypes.c_void_p).value
            places = function, *self._tables, ctypes.addressof(self._places)
            self._work = (ctypes.c_int64 * 9)(*places, len(edges) - 1, *self._numbers, 0, 0)
        work = self._work
        # The next piece, and the sum.
        work[7] = work[8] = 0
        parallel(self._entry, work, threads, 0)
        return work[8]


@lru_cache(maxsize=1)
def _openmp() -> CFuncPtr | None:
    """GNU's entry to a team of threads, in the library that torch itself is linked to."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        entry = getattr(ctypes.CDLL(str(library)), OPENMP_ENTRY)
    except (OSError, AttributeError):
        return None
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry.restype = None
    return entry


@lru_cache(maxsize=1)
def _team() -> Code:
    return load(TEAM, (), this_machine())


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """A pool of this process: threads do not survive a fork, so the key names the process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="flowopt")


def _by_pool(
    code: Code,
    tables: tuple[int, int],
    edges: Sequence[int],
    numbers: tuple[int, int],
    threads: int,
) -> int:
    """The same by threads of ours."""
    pieces = iter(list(pairwise(edges)))

    def work() -> int:
        return sum(code.run(*tables, *piece, *numbers) for piece in pieces)

    pool = _pool(os.getpid(), threads)
    tasks = [pool.submit(work) for _ in range(threads)]
    try:
        wait(tasks)
    except KeyboardInterrupt:
        # Nobody may read results while they are written, and none may be left unwritten.
        wait(tasks)
        raise
    return sum(task.result() for task in tasks)
