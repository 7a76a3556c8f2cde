"""Kernels over a pool of threads: blocks of lanes are independent, so results are too."""

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from flowopt.kernels.native.build import Code
from flowopt.kernels.native.trajectories import Layout

# Pieces per thread: lanes that end early leave their thread with less to do than the others.
PIECES_PER_THREAD = 8
# Elements below which a second thread costs more than it brings.
FEW_ELEMENTS = 1 << 15


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """A pool of this process: threads do not survive a fork, so the key names the process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="flowopt")


def pointers(
    layout: Layout,
    arguments: Sequence[Tensor],
    results: dict[int, Tensor],
    shared: dict[int, Tensor],
) -> tuple[ctypes.Array, ctypes.Array]:
    """Addresses and sizes of tensors in the order of a layout."""
    tensors = [
        *arguments,
        *(results[slot] for slot in layout.carried),
        *(shared[slot] for slot in layout.shared),
    ]
    addresses = (ctypes.c_void_p * max(len(tensors), 1))(*(t.data_ptr() for t in tensors))
    sizes = (ctypes.c_int64 * max(len(arguments), 1))(*(t.numel() for t in arguments))
    return addresses, sizes


def run_blocks(
    code: Code,
    addresses: ctypes.Array,
    sizes: ctypes.Array,
    *,
    trials: int,
    count: int,
    lanes: int,
) -> int:
    """Steps all trajectories; returns how many still run.

    Args:
        code: The kernel.
        addresses: Of its tensors.
        sizes: Of its arguments.
        trials: Most steps.
        count: Trajectories.
        lanes: Trajectories per block.
    """
    blocks = -(-count // lanes)
    threads = min(torch.get_num_threads(), blocks)

    def piece(first: int, last: int) -> int:
        return code.run(addresses, sizes, first, last, trials, count)

    if threads <= 1:
        return piece(0, blocks)
    pieces = min(blocks, threads * PIECES_PER_THREAD)
    edges = [blocks * i // pieces for i in range(pieces + 1)]
    pool = _pool(os.getpid(), threads)
    tasks = [pool.submit(piece, *edge) for edge in pairwise(edges)]
    try:
        wait(tasks)
    except KeyboardInterrupt:
        # Nobody may read results while they are written, and none may be left unwritten.
        wait(tasks)
        raise
    return sum(task.result() for task in tasks)


def run_chunks(code: Code, rows: np.ndarray, numbers: np.ndarray, ends: np.ndarray) -> None:
    """Steps all chunks of a table.

    Args:
        code: The kernel.
        rows: The table.
        numbers: What all elements share; results are written behind it.
        ends: Elements up to the end of each chunk.
    """
    count = len(rows)
    total = int(ends[-1]) if count else 0
    threads = min(torch.get_num_threads(), count, -(-total // FEW_ELEMENTS))
    places = rows.ctypes.data, numbers.ctypes.data
    # Inputs are read by all pieces, so results lie elsewhere and are written once.
    if threads <= 1:
        code.run(*places, 0, count, 1, 0)
        return
    shares = np.linspace(0, total, threads * PIECES_PER_THREAD + 1)[1:-1]
    edges = np.unique([0, *np.searchsorted(ends, shares), count]).tolist()
    pieces = iter(list(pairwise(edges)))

    def work() -> None:
        for first, last in pieces:
            code.run(*places, first, last, int(first == 0), 0)

    pool = _pool(os.getpid(), threads)
    tasks = [pool.submit(work) for _ in range(threads)]
    try:
        wait(tasks)
    except KeyboardInterrupt:
        # Nobody may see tensors of which some are stepped and some are not.
        wait(tasks)
        raise
    for task in tasks:
        task.result()
