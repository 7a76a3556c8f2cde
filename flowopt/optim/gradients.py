"""The oracle of an optimizer: gradients that a training loop left in the parameters."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Sample
from flowopt.core.state import Leaves
from flowopt.errors import CompatibilityError


def check_dense(gradients: Iterable[Tensor]) -> None:
    """Raises `CompatibilityError` where a gradient is sparse."""
    if any(gradient.is_sparse for gradient in gradients):
        raise CompatibilityError("sparse gradients are not supported")


def real_view(tensor: Tensor) -> Tensor:
    """A complex tensor as a real one, (*shape, 2), in the same memory; others as they are."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def real_views(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors, the complex ones as real ones."""
    if any(map(torch.is_complex, tensors)):
        return [real_view(tensor) for tensor in tensors]
    return list(tensors)


def complex_view(leaf: Tensor, like: Tensor) -> Tensor:
    """A leaf in the form of the tensor whose numbers it holds."""
    return torch.view_as_complex(leaf) if like.is_complex() else leaf


class GradientOracle:
    """Reads p.grad, after calling the closure where the position has moved.

    Args:
        parameters: Those that have a gradient.
        sign: −1 to maximise.
        closure: Clears gradients, runs backward and returns the loss.
        remedy: What to do where the closure is missing but needed.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        sign: float,
        closure: Callable[[], Tensor] | None,
        remedy: str,
    ):
        """See the class."""
        self._parameters, self._sign = parameters, sign
        self._closure, self._remedy = closure, remedy

    def read(self, loss: Tensor | float | None) -> Evaluation:
        """The gradients that are there."""
        gradient = tuple(real_views([parameter.grad for parameter in self._parameters]))
        if self._sign < 0:
            gradient = tuple(-leaf for leaf in gradient)
        value = torch.nan if loss is None else self._sign * torch.as_tensor(loss).detach()
        return Evaluation(torch.as_tensor(value, dtype=torch.float64), gradient)

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Moves the parameters to the position, calls the closure and reads the gradients.

        Raises:
            CompatibilityError: There is no closure.
        """
        if self._closure is None:
            raise CompatibilityError(self._remedy)
        with torch.no_grad():
            for parameter, leaf in zip(self._parameters, position, strict=True):
                parameter.copy_(complex_view(leaf, parameter))
        with torch.enable_grad():
            loss = self._closure()
        evaluation = self.read(loss)
        # The closure writes into the same gradient tensors again.
        return Evaluation(evaluation.loss, tuple(g.clone() for g in evaluation.gradient))
