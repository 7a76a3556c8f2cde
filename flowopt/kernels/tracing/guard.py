"""Losses that look up tables.

Where a place is outside of its table, the whole loss is NaN. And a table that is replaced by
another must be noticed wherever they differ, not only where a few trajectories start.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from flowopt.core.curvature.gauss_newton import Composition
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.state import Leaves
from flowopt.kernels.scalar import Scalar
from flowopt.kernels.tracing.arrays import Array


@torch.library.custom_op("flowopt::inside_tables", mutates_args=())
def inside_tables(numbers: Sequence[Tensor]) -> list[Tensor]:
    """The numbers, NaN where a place that was looked up does not exist; only to be traced."""
    raise RuntimeError("this operation is traced, never run")


@inside_tables.register_fake
def _shapes(numbers: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in numbers]


def guarded(evaluation: Evaluation) -> Evaluation:
    """An evaluation that has just been traced; its places in tables are checked."""
    loss, *gradient = inside_tables([evaluation.loss, *evaluation.gradient])
    return Evaluation(loss, tuple(gradient))


def poisoned(arrays: Sequence[Array], inside: int) -> list[Array]:
    """Arrays that are NaN unless a bool is true."""
    if arrays[0].program.value(inside):
        return list(arrays)
    found = []
    for array in arrays:
        condition = Scalar(array.program, inside)
        checked = [condition.where(value, math.nan) for value in array.scalars()]
        found.append(array.fresh(checked, array.shape))
    return found


@dataclass(frozen=True)
class GuardedOracle:
    """Stands for a problem while a step is traced.

    Attributes:
        oracle: The problem.
    """

    oracle: Oracle

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient."""
        return guarded(self.oracle.evaluate(position, sample))

    # Second derivatives are asked for where the gradient is, which is checked.
    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """As the problem's."""
        return self.oracle.losses(position, sample)

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """As the problem's."""
        return self.oracle.composed(position, sample)


class _Reading(TorchDispatchMode):
    """Keeps the tensors that operations are given."""

    def __init__(self):
        super().__init__()
        self.tensors: dict[int, Tensor] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.tensors[id(leaf)] = leaf
        return function(*args, **kwargs)


def still_reads(function: Callable[[], object], tables: Sequence[Tensor]) -> bool:
    """Whether a function reads tables, or others that are equal to them."""
    reading = _Reading()
    with reading:
        function()
    found = reading.tensors.values()
    return all(
        id(table) in reading.tensors or any(_equal(table, other) for other in found)
        for table in tables
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
