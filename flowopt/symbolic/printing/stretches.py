"""Printed code over lists of tensors, run on one stretch of them after another."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

# The longest stretch: a part of all elements, or so many that more of them are no dearer.
PARTS, FEW = 8, 2**16


def in_stretches(function: Callable[..., tuple], lists: Sequence[bool]) -> Callable[..., tuple]:
    """The same function of lists with less memory in between, and that nearer to the processor.

    Lists on a GPU stay whole, where what counts is the number of launches.

    Args:
        function: Of lists of tensors, all of one length, and numbers; its values are such lists.
        lists: Which of its arguments are lists.
    """
    first = lists.index(True)

    def whole(*arguments: Any) -> tuple:
        found = [
            function(*(a[part] if many else a for a, many in zip(arguments, lists, strict=True)))
            for part in _stretches(arguments[first])
        ]
        return tuple(tuple(chain.from_iterable(values)) for values in zip(*found, strict=True))

    return whole


def _stretches(tensors: Sequence[Any]) -> list[slice]:
    """Consecutive tensors of so many elements."""
    if not tensors or tensors[0].device.type != "cpu":
        return [slice(None)]
    sizes = [tensor.numel() for tensor in tensors]
    most = max(sum(sizes) // PARTS, FEW)
    found, first, held = [], 0, 0
    for place, size in enumerate(sizes):
        if held and held + size > most:
            found.append(slice(first, place))
            first, held = place, 0
        held += size
    return [*found, slice(first, len(sizes))]
