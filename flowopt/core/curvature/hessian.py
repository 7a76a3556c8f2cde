"""Second derivatives of the loss, by differentiating its gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.state import Leaves, as_row, as_rows
from flowopt.errors import CompatibilityError


class Hessian:
    """The Hessian H of the loss at a position, through products with it.

    Each trajectory has its own.

    Args:
        oracle: The problem.
        position: Leaves of θ, (*batch, *shape).
        sample: Minibatch of the loss.
        count: Called at every product.

    Raises:
        CompatibilityError: The oracle gives gradients only.
    """

    def __init__(
        self,
        oracle: Oracle,
        position: Leaves,
        sample: Sample,
        count: Callable[[], None] = lambda: None,
    ):
        """See the class."""
        if not hasattr(oracle, "losses"):
            raise CompatibilityError(
                f"second derivatives need the loss as a function of theta, and "
                f"{type(oracle).__name__} gives gradients only: use flowopt.integrate"
            )
        self._leaves = tuple(leaf.detach().requires_grad_() for leaf in position)
        with torch.enable_grad():
            loss = oracle.losses(self._leaves, sample)
            self._gradient = torch.autograd.grad(
                loss.sum(), self._leaves, create_graph=True, materialize_grads=True
            )
        self._batch_dimensions = loss.ndim
        self._count = count

    def product(self, direction: Leaves) -> Leaves:
        """Hv, leaves like those of θ."""
        self._count()
        curved = [(g, v) for g, v in zip(self._gradient, direction, strict=True) if g.requires_grad]
        if not curved:
            return tuple(torch.zeros_like(leaf) for leaf in self._leaves)
        gradients, directions = zip(*curved, strict=True)
        return torch.autograd.grad(
            gradients, self._leaves, directions, retain_graph=True, materialize_grads=True
        )

    def columns(self) -> list[tuple[int, int, Leaves]]:
        """Place of a leaf, index of its element e, and He, for every element."""
        found = []
        for place, leaf in enumerate(self._leaves):
            for element in range(leaf.shape[self._batch_dimensions :].numel()):
                unit = [_zeros(other) for other in self._leaves]
                as_row(unit[place], self._batch_dimensions)[..., element] = 1.0
                found.append((place, element, self.product(tuple(unit))))
        return found

    def matrix(self) -> Tensor:
        """H, (*batch, elements, elements), elements in the order of the leaves."""
        return torch.stack([as_rows(c, self._batch_dimensions) for _, _, c in self.columns()], -1)

    def diagonal(self) -> Leaves:
        """∂²L/∂θᵢ², leaves like those of θ; one product per element."""
        found = [_zeros(leaf) for leaf in self._leaves]
        for place, element, column in self.columns():
            own, row = (as_row(x[place], self._batch_dimensions) for x in (column, found))
            row[..., element] = own[..., element]
        return tuple(found)


def _zeros(leaf: Tensor) -> Tensor:
    """Contiguous, whatever the leaf is: a row of it is written to."""
    return torch.zeros_like(leaf, memory_format=torch.contiguous_format)
