"""The Gauss–Newton matrix: curvature of a loss without that of its residuals."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from flowopt.core.curvature.linear import identity
from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.state import Leaves, as_rows, from_rows
from flowopt.errors import CompatibilityError

# Beyond, columns of ∇²ℓ·J are computed together, where the loss has to bear `torch.vmap`.
FEW = 16


class Composition(NamedTuple):
    """A loss as a function ℓ of outputs f(θ), such as residuals or what a network gives.

    Attributes:
        outputs: f, (*batch, outputs), differentiable in the position.
        loss: ℓ, (*batch, outputs) → (*batch,), convex; None for ½|f|² of residuals f.
        jacobian: () → ∂f/∂θ, (*batch, outputs, elements), and the products that it costs, or None
            where it has to be found by products.
        leaves: Those by which the outputs can be differentiated; the position's where not given.
    """

    outputs: Tensor
    loss: Callable[[Tensor], Tensor] | None = None
    jacobian: Callable[[], tuple[Tensor, int] | None] = lambda: None
    leaves: Leaves | None = None


class GaussNewton:
    """The matrix Q = Jᵀ ∇²ℓ J of a loss ℓ(f(θ)) at a position, with J = ∂f/∂θ.

    For residuals r, with L = ½|r|² up to a constant: ∇L = Jᵀr and Q = JᵀJ. It has no negative
    eigenvalue where ℓ is convex. Each trajectory has its own.

    Args:
        oracle: The problem.
        position: Leaves of θ, (*batch, *shape).
        sample: Minibatch of the loss.
        count: Called with the number of products with J or Jᵀ.

    Raises:
        CompatibilityError: The oracle gives losses only.

    Reference:
        Schraudolph 2002, Neural Comput. 14(7), 1723, section 3.
    """

    def __init__(
        self,
        oracle: Oracle,
        position: Leaves,
        sample: Sample,
        count: Callable[[int], None] = lambda number: None,
    ):
        """See the class."""
        if not hasattr(oracle, "composed"):
            raise CompatibilityError(
                f"the Gauss–Newton matrix needs residuals, and {type(oracle).__name__} gives "
                "losses only: use flowopt.integrate with a problem that has residuals(theta), or a "
                "flowopt.problems.network"
            )
        leaves = tuple(leaf.detach().requires_grad_() for leaf in position)
        self._count = count
        with torch.enable_grad():
            self._composition = oracle.composed(leaves, sample)
        self._leaves = self._composition.leaves or leaves
        self._outputs = self._composition.outputs

    @property
    def batch(self) -> torch.Size:
        """Shape of the batch."""
        return self._outputs.shape[:-1]

    def product(self, direction: Leaves) -> Leaves:
        """Qv, leaves like those of θ; two products."""
        self._count(2)
        return self._pull(self._outputs, self._curved(self._push(direction)))

    def matrix(self) -> Tensor:
        """Q, (*batch, elements, elements), elements in the order of the leaves."""
        jacobian = self.jacobian()
        if self._slope is None:
            curved = jacobian
        elif jacobian.shape[-1] <= FEW:
            curved = torch.stack([self._curved(c) for c in jacobian.unbind(-1)], -1)
        else:
            curved = torch.movedim(self._curved(jacobian.movedim(-1, 0), batched=True), 0, -1)
        if jacobian.shape[-1] > FEW:
            return jacobian.mT @ curved
        # Sums one by one: no trajectory's depend on how many there are.
        columns, others = jacobian.unbind(-1), curved.unbind(-1)
        rows = [torch.stack([(a * b).sum(-1) for b in others], -1) for a in columns]
        return torch.stack(rows, -2)

    def jacobian(self) -> Tensor:
        """J, (*batch, outputs, elements), by as many products as there are elements or outputs."""
        outputs = self._outputs
        zeros = torch.zeros_like(as_rows(self._leaves, len(self.batch)))
        elements = zeros.shape[-1]
        if elements > FEW and (whole := self._composition.jacobian()) is not None:
            self._count(whole[1])
            return whole[0]
        self._count(min(elements, outputs.shape[-1]))
        if elements <= outputs.shape[-1]:
            units = [zeros + unit for unit in identity(elements, zeros)]
            directions = [from_rows(unit, self._leaves, len(self.batch)) for unit in units]
            return torch.stack([self._push(direction) for direction in directions], -1)
        units = [unit.expand_as(outputs) for unit in identity(outputs.shape[-1], outputs)]
        rows = [self._pull(outputs, unit) for unit in units]
        return torch.stack([as_rows(row, len(self.batch)) for row in rows], -2)

    def bend(self, direction: Leaves) -> Leaves:
        """Jᵀ ∇²ℓ f″, with f″ the second derivative of f along a direction; six products.

        Reference:
            Transtrum & Sethna 2012, arXiv:1201.5885, equation 22.
        """
        self._count(6)
        with torch.enable_grad():
            pushed = self._push(direction, create_graph=True)
            if not pushed.requires_grad:
                return tuple(torch.zeros_like(leaf) for leaf in self._leaves)
            weights = torch.zeros_like(pushed, requires_grad=True)
            pulled = self._pull(pushed, weights, create_graph=True)
        second = _along(pulled, weights, direction)
        return self._pull(self._outputs, self._curved(second))

    def _push(self, direction: Leaves, create_graph: bool = False) -> Tensor:
        """Jv, which is ∂(uᵀJ)/∂u along v: by reverse differentiation alone."""
        return _along(*self._pulled, direction, create_graph)

    @cached_property
    def _pulled(self) -> tuple[Leaves, Tensor]:
        """The rows uᵀJ and the weights u."""
        with torch.enable_grad():
            weights = torch.zeros_like(self._outputs, requires_grad=True)
            return self._pull(self._outputs, weights, create_graph=True), weights

    def _pull(self, outputs: Tensor, weights: Tensor, create_graph: bool = False) -> Leaves:
        """Jᵀw."""
        if not outputs.requires_grad:
            return tuple(torch.zeros_like(leaf) for leaf in self._leaves)
        return torch.autograd.grad(
            outputs,
            self._leaves,
            weights,
            retain_graph=True,
            create_graph=create_graph,
            materialize_grads=True,
        )

    @cached_property
    def _slope(self) -> tuple[Tensor, Tensor] | None:
        """∇ℓ and the outputs, cut off from θ; None where ∇²ℓ is one."""
        if self._composition.loss is None:
            return None
        outputs = self._outputs.detach().requires_grad_()
        with torch.enable_grad():
            loss = self._composition.loss(outputs)
            (slope,) = torch.autograd.grad(loss.sum(), outputs, create_graph=True)
        return slope, outputs

    def _curved(self, change: Tensor, batched: bool = False) -> Tensor:
        """∇²ℓ times a change of outputs, or several along a first axis."""
        if self._slope is None:
            return change
        slope, outputs = self._slope
        if not slope.requires_grad:
            return torch.zeros_like(change)
        return torch.autograd.grad(
            slope,
            outputs,
            change,
            retain_graph=True,
            materialize_grads=True,
            is_grads_batched=batched,
        )[0]


def _along(
    pulled: Leaves, weights: Tensor, direction: Leaves, create_graph: bool = False
) -> Tensor:
    """Derivative of what is linear in weights by them, along a direction."""
    linear = [(x, v) for x, v in zip(pulled, direction, strict=True) if x.requires_grad]
    if not linear:
        return torch.zeros_like(weights)
    values, directions = zip(*linear, strict=True)
    return torch.autograd.grad(
        values,
        weights,
        directions,
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )[0]
