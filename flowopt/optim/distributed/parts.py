"""Distributed tensors (DTensor): the part that is here, and where it lies in the whole."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from flowopt.core.shards import Shard, Shards
from flowopt.errors import CompatibilityError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_distributed(tensor: object) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor."""
    # Before torch has loaded it, nobody can have one; it takes 0.3 s to load.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def any_distributed(tensors: Iterable[object]) -> bool:
    """Whether one of them is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    # Thousands of tensors are asked at every step: no Python for each.
    return module is not None and module.DTensor in map(type, tensors)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a distributed tensor, in the same memory; others as they are."""
    if not is_distributed(tensor):
        return tensor
    with torch.no_grad():
        part = tensor.to_local()
    # What a collective has not finished yet is waited for.
    return getattr(part, "wait", lambda: part)()


def distributed_like(part: Tensor, like: Tensor) -> Tensor:
    """A part of this process as the distributed tensor that is placed like another."""
    if not is_distributed(like):
        return part
    return type(like).from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def placed_gradient(parameter: Tensor) -> Tensor | None:
    """The gradient of a distributed parameter, placed as that is.

    Raises:
        CompatibilityError: It is a plain tensor.
    """
    gradient = parameter.grad
    if gradient is None or not is_distributed(parameter):
        return gradient
    if not is_distributed(gradient):
        raise CompatibilityError(
            "a parameter is a distributed tensor and its gradient a plain one: give it a gradient "
            "by backward, or DTensor.from_local(...)"
        )
    if gradient.placements != parameter.placements:
        return gradient.redistribute(placements=parameter.placements)
    return gradient


def shards_of(parameters: Sequence[Tensor]) -> Shards | None:
    """What other processes hold of parameters; None where all are plain tensors."""
    if not any_distributed(parameters):
        return None
    return tuple(map(_shard, parameters))


def _shard(parameter: Tensor) -> Shard:
    size = parameter.numel() * (2 if parameter.is_complex() else 1)
    if not is_distributed(parameter):
        return Shard(size)
    mesh = parameter.device_mesh
    divided = [i for i, placed in enumerate(parameter.placements) if not placed.is_replicate()]
    return Shard(size, tuple(mesh.get_group(i) for i in divided if mesh.size(i) > 1))


class Layout(NamedTuple):
    """Where the elements that are here lie in the whole: rows at equal distances.

    Attributes:
        start: Number of the first element.
        rows: How many rows there are.
        distance: From the start of one row to that of the next.
    """

    start: int
    rows: int
    distance: int


WHOLE = Layout(0, 1, 0)


def layouts_of(parameters: Sequence[Tensor]) -> np.ndarray:
    """The layout of each parameter, (parameter, 3); of those that have none, that of the whole."""
    return np.array([layout_of(parameter) or WHOLE for parameter in parameters], dtype=np.int64)


def layout_of(parameter: Tensor) -> Layout | None:
    """The same of one, whose complex elements are two; None where rows are not equally apart."""
    if not is_distributed(parameter):
        return WHOLE
    mesh = parameter.device_mesh
    # A process outside of the mesh holds no elements, whose number does not matter.
    place = tuple(mesh.get_coordinate() or (0,) * mesh.ndim)
    layout = _layout(tuple(parameter.shape), tuple(mesh.shape), place, parameter.placements)
    if layout is None or not parameter.is_complex():
        return layout
    return Layout(2 * layout.start, layout.rows, 2 * layout.distance)


@lru_cache(maxsize=4096)
def _layout(shape: tuple, sizes: tuple, place: tuple, placements: tuple) -> Layout | None:
    begins, lengths = [0] * len(shape), [*shape]
    for placement, size, own in zip(placements, sizes, place, strict=True):
        if size == 1 or placement.is_replicate():
            continue
        if not placement.is_shard():
            return None
        # Chunks as torch.chunk makes them: the last ones may be shorter, or empty.
        cut = placement.dim
        chunk = -(-lengths[cut] // size)
        first = min(own * chunk, lengths[cut])
        begins[cut], lengths[cut] = begins[cut] + first, min(chunk, lengths[cut] - first)
    divided = [d for d, length in enumerate(lengths) if length != shape[d]]
    if not divided or 0 in lengths:
        return WHOLE
    last = divided[-1]
    outer = divided[-2] if divided[1:] else 0
    # Rows lie at equal distances where nothing but the outermost index jumps.
    if math.prod(lengths[:outer]) != 1:
        return None
    start = sum(begin * math.prod(shape[d + 1 :]) for d, begin in enumerate(begins))
    return Layout(start, math.prod(lengths[:last]), math.prod(shape[last:]))


def check_placements(parameters: Sequence[Tensor], noisy: bool, differentiable: bool) -> None:
    """Raises `CompatibilityError` where parameters are divided in a way that can not be stepped.

    Args:
        parameters: Of a group.
        noisy: Whether the elements must be numbered.
        differentiable: Whether autograd is to follow.
    """
    for parameter in filter(is_distributed, parameters):
        placements = parameter.placements
        if differentiable:
            raise CompatibilityError(
                "differentiable=True: autograd does not follow steps of distributed tensors"
            )
        if any(placement.is_partial() for placement in placements):
            raise CompatibilityError(
                f"a parameter has placements {placements}: parts that are still to be added up can "
                "not be stepped; use Replicate or Shard"
            )
        if noisy and layout_of(parameter) is None:
            raise CompatibilityError(
                f"a parameter of shape {tuple(parameter.shape)} has placements {placements}, and "
                "noise is numbered by element: with noise, each process holds rows at equal "
                "distances in the whole, as with Replicate and Shard of one dimension"
            )


def mean_over_mesh(value: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """The mean of a number over the processes that share parameters.

    Args:
        value: 0-d, such as the loss of a process's own rows.
        parameters: Whose first distributed one says which processes those are.
    """
    module = sys.modules.get("torch.distributed.tensor")
    parameter = module and next(filter(is_distributed, parameters), None)
    if parameter is None:
        return value
    mesh, total = parameter.device_mesh, value.detach().clone()
    for dimension in range(mesh.ndim):
        torch.distributed.all_reduce(total, group=mesh.get_group(dimension))
    return total / mesh.size()


def share_seed(own: int, groups: Iterable[dict]) -> None:
    """Gives groups with this process's own seed that of the first one, where there are several."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    seeds = [own]
    torch.distributed.broadcast_object_list(seeds)
    for group in groups:
        if group["seed"] == own:
            group["seed"] = seeds[0]
