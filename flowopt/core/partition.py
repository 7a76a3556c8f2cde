"""Blocks of the leaves of θ, each with an equation of its own."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import NamedTuple, TypeVar

import torch

from flowopt.core.oracle import MOST_COORDINATE_LEAVES
from flowopt.core.state import Leaves
from flowopt.errors import PartitionError

# A number of a leaf, a name, a pattern of names, or several of them.
Selection = int | str | Sequence[int | str] | EllipsisType

T = TypeVar("T")


class Block(NamedTuple):
    """A block of leaves.

    Attributes:
        name: Of the block.
        places: Of its leaves among all leaves of θ, increasing.
    """

    name: str
    places: tuple[int, ...]

    def of(self, leaves: Sequence[T]) -> tuple[T, ...]:
        """The block's part of leaves that θ has, or of what belongs to them."""
        return tuple(leaves[place] for place in self.places)


class Partition:
    """Blocks that hold every leaf of θ once.

    A leaf is a coordinate of a problem with up to 16 of them, or a parameter of a network.

        Partition(problem, {"fast": [0, 2], "slow": 1})
        Partition(network, {"first": "0.*", "rest": ...})

    Args:
        problem: Whose θ is divided: anything with `dim`, a `flowopt.problems.network`, a torch
            module, whose trainable parameters are meant, or the names of all leaves.
        blocks: Name → leaves: numbers of coordinates, names of parameters or shell patterns of
            them, one or several; `...` takes what the others leave.

    Raises:
        PartitionError: A leaf is in no block or in two, a block is empty, or names nothing.
    """

    def __init__(self, problem: object, blocks: Mapping[str, Selection]):
        """See the class."""
        self.leaves = _leaf_names(problem)
        if not isinstance(blocks, Mapping) or not blocks:
            raise PartitionError(
                f"blocks={blocks!r}: give names and leaves, as in {{'first': '0.*', 'rest': ...}}"
            )
        chosen = {name: _chosen(name, what, self.leaves) for name, what in blocks.items()}
        taken = {place for places in chosen.values() for place in places or ()}
        rest = tuple(place for place in range(len(self.leaves)) if place not in taken)
        self.blocks = tuple(
            Block(name, rest if places is None else places) for name, places in chosen.items()
        )
        self._check()

    def __repr__(self) -> str:
        """The blocks, with the names of their leaves."""
        blocks = (f"{b.name}: {', '.join(self._named(b.places))}" for b in self.blocks)
        return f"<partition {'; '.join(blocks)}>"

    def __eq__(self, other: object) -> bool:
        """Equal where leaves and blocks are."""
        return isinstance(other, Partition) and self._key() == other._key()

    def __hash__(self) -> int:
        """Of leaves and blocks."""
        return hash(self._key())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(block.name for block in self.blocks)

    def block(self, name: str) -> Block:
        """The block of a name."""
        return next(block for block in self.blocks if block.name == name)

    def check(self, position: Leaves) -> None:
        """Raises `PartitionError` unless a position has the leaves that were divided."""
        if len(position) != len(self.leaves):
            raise PartitionError(
                f"the partition divides {len(self.leaves)} leaves, {', '.join(self.leaves)}, and "
                f"the problem has {len(position)}: make the partition from that problem, "
                "fo.Partition(problem, …)"
            )

    def _key(self) -> tuple:
        return self.leaves, self.blocks

    def _named(self, places: Sequence[int]) -> list[str]:
        return [self.leaves[place] for place in places]

    def _check(self) -> None:
        seen: dict[int, str] = {}
        for block in self.blocks:
            if not block.places:
                raise PartitionError(f"block {block.name!r} is empty: leave it out")
            for place in block.places:
                if place in seen:
                    raise PartitionError(
                        f"leaf {self.leaves[place]!r} is in blocks {seen[place]!r} and "
                        f"{block.name!r}: every leaf is in one block"
                    )
                seen[place] = block.name
        missing = [place for place in range(len(self.leaves)) if place not in seen]
        if missing:
            raise PartitionError(
                f"no block has {', '.join(self._named(missing))}: every leaf is in one block, and "
                "one block may take what the others leave, as in {'rest': ...}"
            )


def places_of(partition: Partition | None, variable: str, count: int) -> tuple[int, ...]:
    """Which of θ's leaves a variable of a flow has its leaves for.

    Args:
        partition: Of the flow, if it has one.
        variable: Its name; that of a block's variable is "block.variable".
        count: How many leaves θ has.
    """
    block, dot, _ = variable.partition(".")
    if partition is None or not dot:
        return tuple(range(count))
    return partition.block(block).places


def _leaf_names(problem: object) -> tuple[str, ...]:
    if isinstance(problem, torch.nn.Module):
        names = [name for name, value in problem.named_parameters() if value.requires_grad]
    elif isinstance(dim := getattr(problem, "dim", None), int):
        coordinates = dim if dim <= MOST_COORDINATE_LEAVES else 1
        names = getattr(problem, "names", None) or list(map(str, range(coordinates)))
    elif isinstance(problem, Sequence) and all(isinstance(name, str) for name in problem):
        names = list(problem)
    else:
        raise PartitionError(
            f"{type(problem).__name__} has no leaves to divide: give a problem with dim, a "
            "flowopt.problems.network or a torch module"
        )
    return tuple(names)


def _chosen(name: object, what: Selection, leaves: tuple[str, ...]) -> tuple[int, ...] | None:
    """Places of a block's leaves, increasing; None for those that the others leave."""
    if not isinstance(name, str) or not name.isidentifier():
        raise PartitionError(f"{name!r} can not name a block: use a Python identifier")
    if what is ...:
        return None
    several = what if isinstance(what, Sequence) and not isinstance(what, str) else (what,)
    places: set[int] = set()
    for one in several:
        if isinstance(one, str):
            found = {place for place, leaf in enumerate(leaves) if fnmatchcase(leaf, one)}
        else:
            whole = isinstance(one, int) and not isinstance(one, bool)
            found = {one} & set(range(len(leaves))) if whole else set()
        if not found:
            raise PartitionError(
                f"block {name!r}: {one!r} names none of the {len(leaves)} leaves "
                f"{', '.join(leaves)}: give numbers from 0, names or patterns such as '0.*'"
                + _few_leaves(leaves)
            )
        places |= found
    return tuple(sorted(places))


def _few_leaves(leaves: tuple[str, ...]) -> str:
    if len(leaves) > 1:
        return ""
    return (
        f"; a problem with more than {MOST_COORDINATE_LEAVES} coordinates has one leaf: make it a "
        "network whose parameters are the blocks"
    )
