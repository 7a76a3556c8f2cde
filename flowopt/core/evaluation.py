"""What a problem says about a position, asked for at most once per position."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.costs import HESSIAN_PRODUCTS
from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.state import Leaves, State


@dataclass(frozen=True)
class Evaluation:
    """Loss and gradient at a position.

    Attributes:
        loss: (*batch,), in the dtype of the loss.
        gradient: Leaves like those of θ; none where only the loss was asked for.
        damped: (Q + μI)⁻¹∇L, to flows whose equations hold it; leaves like those of θ.
    """

    loss: Tensor
    gradient: Leaves
    damped: Leaves | None = None


pytree.register_pytree_node(
    Evaluation,
    # None would be a leaf.
    lambda e: ([e.loss, e.gradient, *([] if e.damped is None else [e.damped])], None),
    lambda children, _: Evaluation(*children),
    serialized_type_name="flowopt.Evaluation",
)


class Evaluator:
    """Evaluates positions with one sample and remembers the last one.

    Attributes:
        gradients: How many evaluations of loss and gradient were made.
        products: How many products with the Jacobian of residuals, or with its transpose, were
            made; one with the Hessian counts as three.
        losses: How many evaluations of the loss alone were made; (*batch,) where not of all.
    """

    def __init__(self, oracle: Oracle, sample: Sample, known: tuple[Leaves, Evaluation] | None):
        self._oracle = oracle
        self._sample = sample
        self._known = known
        self.gradients = 0
        self.products = 0
        self.losses: int | Tensor = 0

    def __call__(self, state: State) -> Evaluation:
        """Loss and gradient at the state's position; free where the position has not moved."""
        known = self.known(state)
        if known is not None:
            return known
        self.gradients += 1
        made = getattr(self._oracle, "products", 0)
        evaluation = self._oracle.evaluate(state.position, self._sample)
        self.products += getattr(self._oracle, "products", 0) - made
        self._known = (state.position, evaluation)
        return evaluation

    def loss(self, state: State, asked: Tensor | None = None) -> Evaluation:
        """The loss at the state's position, without gradient unless that is known.

        Args:
            state: Where.
            asked: (*batch,), bool: trajectories that need it, and are charged; all by default.
        """
        known = self.known(state)
        if known is not None:
            return known
        self.losses = self.losses + (1 if asked is None else asked.to(torch.int64))
        loss = self._oracle.losses(state.position, self._sample)
        return Evaluation(loss.detach(), ())

    def hessian(self, state: State) -> Hessian:
        """The Hessian at the state's position, for which the gradient is taken once more."""
        self.gradients += 1
        return Hessian(self._oracle, state.position, self._sample, self._count_hessian)

    def gauss_newton(self, state: State) -> GaussNewton:
        """The Gauss–Newton matrix at the state's position."""
        return GaussNewton(self._oracle, state.position, self._sample, self._count)

    def _count(self, number: int) -> None:
        self.products += number

    def _count_hessian(self) -> None:
        self._count(HESSIAN_PRODUCTS)

    def known(self, state: State) -> Evaluation | None:
        """The evaluation at the state's position if it was made already."""
        if self._known is not None and self._known[0] is state.position:
            return self._known[1]
        return None

    def switch(self, sample: Sample) -> None:
        """Uses another sample from now on; what is known stays known."""
        self._sample = sample
