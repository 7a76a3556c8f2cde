"""Writer of IDX files, the counterpart of `studies.common.data.idx`."""

import gzip
from pathlib import Path

import numpy as np


def idx_bytes(entries: np.ndarray) -> bytes:
    header = [0x0800 | entries.ndim, *entries.shape]
    return np.array(header, dtype=">u4").tobytes() + entries.astype(np.uint8).tobytes()


def write_idx(path: Path, entries: np.ndarray) -> Path:
    path.write_bytes(gzip.compress(idx_bytes(entries), mtime=0))
    return path
