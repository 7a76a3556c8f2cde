"""Reader of IDX files, the format in which MNIST is distributed."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from flowopt.errors import DataError

# Third byte of the magic number: the entries are unsigned bytes.
_UNSIGNED_BYTE = 0x08
_WORD = 4


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes.

    Args:
        path: The file.
        dimensions: How many axes it must have: 1 for labels, 3 for images.

    Returns:
        uint8 array of the shape that the header declares, rows first.

    Raises:
        DataError: The file can not be read or unpacked, its magic number is another one,
            a size is zero, or its header and its contents disagree.

    Reference:
        Header as described at http://yann.lecun.com/exdb/mnist/: big-endian magic number
        0x0800 + axes (2049 for labels, 2051 for images), one 32-bit size per axis, bytes.
    """
    content = _unpacked(path)
    header_bytes = _WORD * (1 + dimensions)
    if len(content) < header_bytes:
        raise DataError(
            f"{path} has {len(content)} bytes when unpacked, expected a header of {header_bytes} "
            "and data: the file is truncated, fetch it again"
        )
    magic, *sizes = (int(word) for word in np.frombuffer(content[:header_bytes], dtype=">u4"))
    expected_magic = _UNSIGNED_BYTE << 8 | dimensions
    if magic != expected_magic:
        raise DataError(
            f"{path} begins with the magic number {magic}, expected {expected_magic} "
            f"(unsigned bytes, {dimensions} axes): it is another kind of file"
        )
    if 0 in sizes:
        raise DataError(f"{path} declares the sizes {sizes}, expected data: use a file with rows")
    data_bytes = len(content) - header_bytes
    if data_bytes != math.prod(sizes):
        raise DataError(
            f"{path} holds {data_bytes} entries, expected {math.prod(sizes)} from its header "
            f"{sizes}: the file is damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(sizes)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} can not be unpacked ({error}), expected a whole gzip file: fetch it again"
        ) from error
