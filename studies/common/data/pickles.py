"""Reader of pickles from strangers: plain values and arrays of bytes, and nothing that runs.

A pickle is a program that may call whatever it can name. Here it can name three things, and each
stands for a class of ours: not even numpy is called with what a file says.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from flowopt.errors import DataError

BYTE_KINDS = ("u1", b"u1", "|u1", b"|u1")
# What a damaged or hostile program can run into.
FAILURES = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    OverflowError,
    MemoryError,
    RecursionError,
)


def read_arrays(path: Path) -> dict:
    """Read a pickled dict of plain values and arrays of unsigned bytes.

    Args:
        path: The file; text of Python 2 is read as bytes.

    Returns:
        Its content; arrays are uint8 and can not be written to.

    Raises:
        DataError: The file can not be read, breaks off, holds no dict, names anything but numpy's
            arrays, or describes an array that its own bytes do not fill.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"a {type(content).__name__} came, expected a dict")
        return {
            name: value.array() if isinstance(value, _Array) else value
            for name, value in content.items()
        }
    except (OSError, *FAILURES) as error:
        raise DataError(
            f"{path} can not be read ({error}), expected a pickle of plain values and arrays of "
            "bytes: use the official file"
        ) from error


class _Kind:
    """Stands for a dtype, which can only be that of bytes."""

    def __init__(self, name: object, *flags: object):
        if name not in BYTE_KINDS:
            raise pickle.UnpicklingError(f"an array of {name!r:.40} came, expected unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which bytes have none of."""


class _Array:
    """Stands for an array, and for the function of numpy's that begins one."""

    def __init__(self, kind: object, shape: object, code: object):
        self._value: np.ndarray | None = None

    def __setstate__(self, state: Iterable) -> None:
        _, shape, kind, columns_first, content = state
        plain = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not (plain and isinstance(kind, _Kind) and isinstance(content, bytes)):
            raise pickle.UnpicklingError("an array without a shape of whole numbers, or no bytes")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"{len(content)} bytes for an array of the shape {shape}")
        order = "F" if columns_first else "C"
        self._value = np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order)

    def array(self) -> np.ndarray:
        """The array; raises `UnpicklingError` if the file has only begun it."""
        if self._value is None:
            raise pickle.UnpicklingError("an array without content")
        return self._value


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the names in `KNOWN`."""

    def find_class(self, module: str, name: str) -> object:
        """What a name stands for; raises `UnpicklingError` for all others."""
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return KNOWN[module, name]


KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}
