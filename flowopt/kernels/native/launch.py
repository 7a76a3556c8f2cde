"""Kernels over threads: blocks of lanes are independent, so results are too."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flowopt.kernels.native.build import Code
from flowopt.kernels.native.team import Pieces
from flowopt.kernels.native.trajectories import Layout

# Pieces per thread: lanes that end early leave their thread with less to do than the others.
PIECES_PER_THREAD = 64
# Elements below which a second thread costs more than it brings.
FEW_ELEMENTS = 1 << 15
# The same for steps of trajectories.
FEW_STEPS = 1 << 16


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
    threads = torch.get_num_threads() if count * trials >= FEW_STEPS else 1
    pieces = max(1, min(blocks, threads * PIECES_PER_THREAD))
    edges = [blocks * i // pieces for i in range(pieces + 1)]
    tables = ctypes.addressof(addresses), ctypes.addressof(sizes)
    return Pieces(code, tables, edges, (trials, count), threads).run()


def chunk_threads(elements: int) -> int:
    """Threads for a table of so many elements."""
    # A team that shrinks loses threads, and has to start them again when it grows.
    return torch.get_num_threads() if elements >= FEW_ELEMENTS else 1


def chunk_edges(ends: np.ndarray, threads: int) -> list[int]:
    """Edges of pieces of a table, given the elements up to the end of each chunk."""
    count = len(ends)
    total = int(ends[-1]) if count else 0
    shares = np.linspace(0, total, threads * PIECES_PER_THREAD + 1)[1:-1]
    return np.unique([0, *np.searchsorted(ends, shares), count]).tolist()
