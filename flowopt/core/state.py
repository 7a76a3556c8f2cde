"""State of a trajectory, or of a batch of them, and the algebra over its leaves."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.shards import Shard, Shards, spread, summed
from flowopt.errors import CompatibilityError

Leaves = tuple[Tensor, ...]


class Owned(tuple):
    """Leaves whose tensors a step may write over; nobody asks for what was in them."""


def lift(scalar: Tensor, leaf: Tensor) -> Tensor:
    """A scalar per trajectory, (*batch,), in the dtype of a leaf (*batch, *shape) and beside it."""
    missing = leaf.ndim - scalar.ndim
    if scalar.ndim and missing:
        scalar = scalar.reshape(scalar.shape + (1,) * missing)
    return scalar.to(leaf.dtype)


def per_trajectory(what: str, value: Tensor, batch: tuple[int, ...]) -> Tensor:
    """One number, or one per trajectory, as (*batch,).

    Raises:
        CompatibilityError: It has another shape.
    """
    if value.ndim and tuple(value.shape) != tuple(batch):
        raise CompatibilityError(
            f"{what} has shape {tuple(value.shape)}, the batch has shape {tuple(batch)}: give one "
            "number, or one per trajectory"
        )
    return value.expand(batch)


def sum_elements(leaf: Tensor, batch_dimensions: int) -> Tensor:
    """Sum over all but the batch dimensions, (*batch,), float64."""
    if leaf.ndim == batch_dimensions:
        return leaf.to(torch.float64)
    return leaf.flatten(batch_dimensions).sum(-1).to(torch.float64)


def sum_leaves(
    leaves: Iterable[Tensor],
    batch_dimensions: int,
    shards: Shards | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Sum over all elements of all leaves, (*batch,), float64.

    Args:
        leaves: (*batch, *shape) each.
        batch_dimensions: Length of the batch shape.
        shards: Where the rest of each leaf is; None where all are whole.
        start: What is added first, (*batch,).
    """
    parts = [sum_elements(leaf, batch_dimensions) for leaf in leaves]
    if shards is not None:
        parts = [summed(parts, shards)]
    return sum(parts[1:], start=parts[0]) if start is None else sum(parts, start=start)


def all_finite(leaves: Leaves, batch_dimensions: int, shards: Shards | None = None) -> Tensor:
    """Whether every element is finite, in all processes, (*batch,), bool.

    Sums of float32 numbers can overflow too, but only beyond 1e38, where nothing is left to save.
    """
    total = sum_leaves(leaves, batch_dimensions)
    if shards is not None:
        total = spread(total, shards)
    # NaN and infinity survive a sum, and two operations do where torch.isfinite takes four.
    return total - total == 0.0


def as_row(leaf: Tensor, batch_dimensions: int) -> Tensor:
    """The elements of a leaf in a row, (*batch, elements): a view where it is contiguous."""
    # Not −1, which an empty batch leaves open.
    batch, elements = leaf.shape[:batch_dimensions], leaf.shape[batch_dimensions:].numel()
    return leaf.reshape(*batch, elements)


def as_rows(leaves: Leaves, batch_dimensions: int) -> Tensor:
    """The elements of all leaves in a row, (*batch, elements)."""
    return torch.cat([as_row(leaf, batch_dimensions) for leaf in leaves], -1)


def from_rows(row: Tensor, like: Leaves, batch_dimensions: int) -> Leaves:
    """The inverse of `as_rows`."""
    sizes = [leaf.shape[batch_dimensions:].numel() for leaf in like]
    pieces = zip(row.split(sizes, -1), like, strict=True)
    return tuple(piece.reshape(leaf.shape) for piece, leaf in pieces)


@dataclass(frozen=True)
class State:
    """Where trajectories are: θ and what else the method carries.

    Attributes:
        variables: Name → leaves `(*batch, *shape)`; `theta` is always there.
        scalars: Name → one float64 value per trajectory, `(*batch,)`.
        time: (*batch,), float64.
        step: Accepted steps so far, (*batch,), int64; keys the noise.
        native: Whether a native kernel stepped it here, so that what continues is too; None where
            `integrate` did not make it. It is no part of the state: equal states may differ in it.
        shards: Where the rest of each leaf of θ is, if other processes have some of it.
    """

    variables: dict[str, Leaves]
    scalars: dict[str, Tensor]
    time: Tensor
    step: Tensor
    native: bool | None = field(default=None, compare=False, repr=False)
    shards: Shards | None = field(default=None, compare=False, repr=False)

    @property
    def position(self) -> Leaves:
        """The leaves of θ."""
        return self.variables["theta"]

    @property
    def batch(self) -> torch.Size:
        """Shape of the batch; () for a single trajectory."""
        return self.time.shape

    def total(self, leaves: Iterable[Tensor], start: Tensor | None = None) -> Tensor:
        """Sum over all elements of leaves like those of θ, in all processes, (*batch,), float64."""
        return sum_leaves(leaves, self.time.ndim, self.shards, start)

    def squared_norm(self, leaves: Iterable[Tensor]) -> Tensor:
        """Sum of squares of leaves like those of θ, in all processes, (*batch,), float64."""
        return self.total(leaf * leaf for leaf in leaves)

    def square(self) -> Tensor:
        """Sum of squares of all variables, in all processes, and scalars, (*batch,), float64."""
        leaves = [leaf for variable in self.variables.values() for leaf in variable]
        values = [*leaves, *self.scalars.values()]
        shards = self.shards
        if shards is not None:
            shards = shards * len(self.variables) + (Shard(1),) * len(self.scalars)
        return sum_leaves((value * value for value in values), self.time.ndim, shards)

    def size(self, leaves: Leaves) -> int:
        """Elements of leaves like those of θ, in all processes."""
        if self.shards is not None:
            return sum(shard.size for shard in self.shards)
        return sum(math.prod(leaf.shape[self.time.ndim :]) for leaf in leaves)

    def with_position(self, position: Leaves) -> "State":
        """The same state elsewhere."""
        return replace(self, variables={**self.variables, "theta": position})

    def updated(
        self, variables: dict[str, Leaves], scalars: dict[str, Tensor] | None = None
    ) -> "State":
        """The same state with some variables and scalars replaced."""
        return replace(
            self,
            variables={**self.variables, **variables},
            scalars={**self.scalars, **(scalars or {})},
        )

    def map(self, function: Callable[..., Tensor], *others: "State") -> "State":
        """A function of every leaf and scalar, with those of other states in the same place."""
        variables = {
            name: tuple(
                function(*group)
                for group in zip(leaves, *(o.variables[name] for o in others), strict=True)
            )
            for name, leaves in self.variables.items()
        }
        scalars = {
            name: function(value, *(o.scalars[name] for o in others))
            for name, value in self.scalars.items()
        }
        return replace(self, variables=variables, scalars=scalars)

    def plus(self, increments: Iterable[tuple[Tensor, "State"]]) -> "State":
        """The state z + Σ hᵢ dzᵢ; time and step number are left alone.

        Args:
            increments: Pairs of a factor (*batch,) and a tangent state.
        """
        factors, tangents = zip(*increments, strict=True)

        def combine(value: Tensor, *slopes: Tensor) -> Tensor:
            for factor, slope in zip(factors, slopes, strict=True):
                value = value + lift(factor, value) * slope
            return value

        return self.map(combine, *tangents)


def select(mask: Tensor, chosen: State, other: State) -> State:
    """Per trajectory, one of two states.

    Args:
        mask: (*batch,), bool.
        chosen: Taken where the mask is true.
        other: Taken elsewhere.
    """

    def pick(a: Tensor, b: Tensor) -> Tensor:
        if a is b:
            return a
        aligned = mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)) if mask.ndim else mask
        return torch.where(aligned, a, b)

    picked = chosen.map(pick, other)
    return replace(
        picked,
        time=torch.where(mask, chosen.time, other.time),
        step=torch.where(mask, chosen.step, other.step),
    )


pytree.register_pytree_node(
    State,
    lambda s: ([s.variables, s.scalars, s.time, s.step], None),
    lambda children, _: State(*children),
    serialized_type_name="flowopt.State",
)

# A state is tensors and nothing else, so torch.load may read one from a stranger's file.
torch.serialization.add_safe_globals([State])
