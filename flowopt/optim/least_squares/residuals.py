"""The oracle of Levenberg–Marquardt: residuals of a module in a training loop."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from flowopt.core.curvature.gauss_newton import Composition
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Sample
from flowopt.core.state import Leaves
from flowopt.errors import CompatibilityError, DataError
from flowopt.problems import Network


class Residuals(Protocol):
    """What a step asks about a position."""

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """Residuals, or outputs with their loss."""
        ...

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient."""
        ...


class CalledResiduals:
    """Residuals by a function that reads the parameters, which are moved for it.

    Args:
        parameters: Those that move.
        residuals: () → residuals of any shape.
        loss: Residuals → loss; None for half of their squares.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        residuals: Callable[[], Tensor],
        loss: Callable[[Tensor], Tensor] | None,
    ):
        """See the class."""
        self._parameters, self._residuals, self._loss = parameters, residuals, loss

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """The residuals at a position, where the parameters are moved.

        Raises:
            DataError: They do not depend on the parameters.
        """
        with torch.no_grad():
            for parameter, leaf in zip(self._parameters, position, strict=True):
                parameter.copy_(leaf)
        with torch.enable_grad():
            found = self._residuals()
            if not isinstance(found, Tensor) or not found.requires_grad:
                raise DataError(
                    f"residuals() gives a tensor that depends on the parameters, got {found!r:.60}"
                )
            shape, loss = found.shape, self._loss
            flat = None if loss is None else (lambda outputs: loss(outputs.reshape(shape)))
            return Composition(found.reshape(-1), flat, leaves=tuple(self._parameters))

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient by reverse differentiation."""
        with torch.enable_grad():
            outputs, loss = self.composed(position, sample)[:2]
            value = 0.5 * (outputs * outputs).sum() if loss is None else loss(outputs)
            gradient = torch.autograd.grad(value, self._parameters, materialize_grads=True)
        return Evaluation(value.detach(), gradient)


def residuals_of(
    parameters: list[Tensor],
    residuals: Callable[[], Tensor] | Network,
    loss: Callable[[Tensor], Tensor] | None,
) -> Residuals:
    """The oracle of a step.

    Raises:
        CompatibilityError: A network has other parameters than the optimizer, or a second loss.
    """
    if not isinstance(residuals, Network):
        return CalledResiduals(parameters, residuals, loss)
    if loss is not None:
        raise CompatibilityError("a network has its own loss: leave out loss=")
    own = [residuals.module.get_parameter(name) for name in residuals.names]
    if list(map(id, own)) != list(map(id, parameters)):
        raise CompatibilityError(
            "the network's trainable parameters are not those of the optimizer, in their order: "
            "give module.parameters() to LevenbergMarquardt"
        )
    return residuals
