"""Leaves of which other processes hold the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    # Not every build of torch has it.
    from torch.distributed import ProcessGroup


class Shard(NamedTuple):
    """What a process holds of a leaf.

    Attributes:
        size: Elements of the whole leaf.
        groups: Processes among which the leaf is divided, a group for each time it is; none where
            every process holds all of it, however many do.
    """

    size: int
    groups: tuple[ProcessGroup, ...] = ()


Shards = tuple[Shard, ...]


def summed(parts: Sequence[Tensor], shards: Shards) -> Tensor:
    """The sum of what leaves have here and elsewhere, whole leaves counted once.

    Every process calls it in the same order, and receives the same bits.

    Args:
        parts: A number of each leaf, or (*batch,).
        shards: Of the leaves.
    """
    together: dict[tuple, Tensor] = {}
    for part, shard in zip(parts, shards, strict=True):
        known = together.get(shard.groups)
        together[shard.groups] = part if known is None else known + part
    sums = [_reduced(part, groups) for groups, part in together.items()]
    return sum(sums[1:], start=sums[0])


def spread(number: Tensor, shards: Shards) -> Tensor:
    """The sum of a number over all processes that hold a part of any leaf.

    Good for what is judged by being finite, as some numbers are counted several times.
    """
    for groups in dict.fromkeys(shard.groups for shard in shards):
        number = _reduced(number, groups)
    return number


def _reduced(number: Tensor, groups: Sequence) -> Tensor:
    number = number.clone() if groups else number
    for group in groups:
        torch.distributed.all_reduce(number, group=group)
    return number
