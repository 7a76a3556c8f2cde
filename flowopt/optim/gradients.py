"""The oracle of an optimizer: gradients that a training loop left in the parameters."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Sample
from flowopt.core.state import Leaves
from flowopt.errors import CompatibilityError
from flowopt.optim.distributed.parts import (
    any_distributed,
    distributed_like,
    is_distributed,
    local,
    placed_gradient,
)

# Thousands of tensors are asked at every step.
gradient_of, is_sparse = attrgetter("grad"), attrgetter("is_sparse")

# The loss where nobody gave it.
UNKNOWN = torch.tensor(torch.nan, dtype=torch.float64)


def check_dense(gradients: Iterable[Tensor | None]) -> None:
    """Raises `CompatibilityError` where a gradient is sparse."""
    if any(map(is_sparse, [gradient for gradient in gradients if gradient is not None])):
        raise CompatibilityError(
            "sparse gradients are not supported: make the embedding with sparse=False, or give its "
            "weight to torch.optim.SparseAdam"
        )


def check_apart(parameters: Sequence[Tensor]) -> None:
    """Raises `CompatibilityError` where two begin in the same memory: one would undo the other."""
    plain = [p for p in parameters if type(p) in (Tensor, torch.nn.Parameter) and p.numel()]
    places = [place for place in map(Tensor.data_ptr, plain) if place]
    if len(set(places)) < len(places):
        raise CompatibilityError(
            "two parameters share memory, and the step of one would undo that of the other: make "
            "them one parameter, as in decoder.weight = encoder.weight"
        )


def real_view(tensor: Tensor) -> Tensor:
    """What a step sees of a tensor, in the same memory: plain, real numbers.

    A complex tensor as a real one, (*shape, 2); of a distributed one the part that is here.
    """
    tensor = local(tensor)
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def all_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether a step sees all tensors as they are."""
    return not any_distributed(tensors) and not any(map(Tensor.is_complex, tensors))


def real_views(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a step sees of tensors."""
    return list(tensors) if all_plain(tensors) else [real_view(tensor) for tensor in tensors]


def complex_view(leaf: Tensor, like: Tensor) -> Tensor:
    """A leaf in the form of the tensor whose numbers it holds."""
    return distributed_like(torch.view_as_complex(leaf) if like.is_complex() else leaf, like)


def assign(parameter: Tensor, leaf: Tensor) -> None:
    """Writes a leaf over the numbers of a parameter."""
    if is_distributed(parameter):
        real_view(parameter).copy_(leaf)
    else:
        parameter.copy_(complex_view(leaf, parameter))


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that are there, those of distributed parameters placed as they are."""
    own = map(placed_gradient, parameters) if any_distributed(parameters) else None
    found = map(gradient_of, parameters) if own is None else own
    return [gradient for gradient in found if gradient is not None]


class SameSample:
    """A closure that draws the same random numbers whenever it is called within a step.

    Args:
        closure: Clears gradients, runs backward and returns the loss.
        loss: The same without gradients, if there is a cheaper way.

    Attributes:
        forward: The loss without gradients, None if there is no cheaper way.
    """

    def __init__(self, closure: Callable[[], Tensor], loss: Callable[[], Tensor] | None):
        """See the class."""
        self._closure = closure
        self.forward = None if loss is None else partial(self._repeated, loss)
        self._before = _random_state()
        self._after: list[Tensor] | None = None

    def __call__(self) -> Tensor:
        """The closure's loss."""
        return self._repeated(self._closure)

    def finish(self) -> None:
        """Goes on with the random numbers that one call leaves, however many there were."""
        if self._after is not None:
            _set_random_state(self._after)

    def _repeated(self, function: Callable[[], Tensor]) -> Tensor:
        _set_random_state(self._before)
        value = function()
        if value is None:
            raise CompatibilityError("the closure gives no loss to compare: end it by return loss")
        self._after = self._after or _random_state()
        return value


def _random_state() -> list[Tensor]:
    states = [torch.get_rng_state()]
    return states + (torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])


def _set_random_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state_all(states[1:])


class GradientOracle:
    """Reads p.grad, after calling the closure where the position has moved.

    Args:
        parameters: Those that have a gradient.
        sign: −1 to maximise.
        closure: Clears gradients, runs backward and returns the loss.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        sign: float,
        closure: Callable[[], Tensor] | None,
    ):
        """See the class."""
        self._parameters, self._sign, self._closure = parameters, sign, closure
        self._forward = closure.forward if isinstance(closure, SameSample) else None

    def read(self, loss: Tensor | float | None) -> Evaluation:
        """The gradients that are there."""
        gradient = tuple(real_views(gradients_of(self._parameters)))
        if self._sign < 0:
            gradient = tuple(-leaf for leaf in gradient)
        value = UNKNOWN if loss is None else self._signed(torch.as_tensor(loss))
        return Evaluation(value, gradient)

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Moves the parameters to the position, calls the closure and reads the gradients."""
        # Without one, a scheme that needs it has been refused.
        assert self._closure is not None
        self._move(position)
        with torch.enable_grad():
            loss = self._closure()
        evaluation = self.read(loss)
        # The closure writes into the same gradient tensors again.
        return Evaluation(evaluation.loss, tuple(g.clone() for g in evaluation.gradient))

    @property
    def forward_alone(self) -> bool:
        """Whether the loss can be had without its gradient."""
        return self._forward is not None

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """The loss at a position, 0-d, float64."""
        if self._forward is None:
            return self.evaluate(position, sample).loss
        self._move(position)
        with torch.no_grad():
            return self._signed(self._forward())

    def _move(self, position: Leaves) -> None:
        with torch.no_grad():
            for parameter, leaf in zip(self._parameters, position, strict=True):
                assign(parameter, leaf)

    def _signed(self, loss: Tensor) -> Tensor:
        return self._sign * loss.detach().to(torch.float64).reshape(())
