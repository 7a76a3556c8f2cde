"""Any object with `dim` and `loss(theta)` as an oracle."""

from collections.abc import Callable
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from flowopt.core.curvature.gauss_newton import Composition
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Oracle, Sample
from flowopt.core.probing import describe, loss_of_residuals, probed, probed_residuals
from flowopt.core.state import Leaves
from flowopt.errors import CompatibilityError, DataError

# Up to this dimension each coordinate is a leaf of its own: elementwise work on contiguous arrays.
MOST_COORDINATE_LEAVES = 16


class HasLoss(Protocol):
    """What a user hands to `integrate`."""

    @property
    def dim(self) -> int:
        """Number of parameters."""
        ...

    def loss(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch,), or (dim,) → a 0-d tensor."""
        ...


class HasResiduals(Protocol):
    """What a user may hand over instead: the loss is half the sum of squares."""

    @property
    def dim(self) -> int:
        """Number of parameters."""
        ...

    def residuals(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch, residuals), or (dim,) → (residuals,)."""
        ...


Problem = HasLoss | HasResiduals


class LossOracle:
    """Loss and gradient of a problem with few parameters.

    Args:
        problem: Anything with `dim` and `loss(theta)`. The loss is tried once with shapes (3, dim)
            and (dim,): where both agree it is used as it is; where only (dim,) gives one number,
            under `torch.vmap`. For Gauss–Newton matrices it has `residuals(theta)` r too,
            (*batch, dim) → (*batch, residuals), with L = ½|r|² up to a constant; then `loss` may
            be left out.
        dtype: Of the trial.
        device: Of the trial.

    Raises:
        DataError: The problem has no such attributes, or its loss has the wrong shape.
    """

    def __init__(self, problem: object, dtype: torch.dtype, device: torch.device):
        """See the class."""
        dim, residuals = getattr(problem, "dim", None), getattr(problem, "residuals", None)
        loss = getattr(problem, "loss", None) or (residuals and loss_of_residuals(residuals))
        if not isinstance(dim, int) or dim < 1 or not callable(loss):
            raise DataError(
                f"{problem!r} is no problem: it needs dim, a positive int (got {dim!r}), and "
                "loss(theta) that maps (*batch, dim) to (*batch,)"
            )
        self.dim = dim
        self.problem = problem
        self._loss = probed(loss, dim, dtype, device)
        self._residuals = residuals and probed_residuals(residuals, self._loss, dim, dtype, device)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the leaves of a single trajectory."""
        few = self.dim <= MOST_COORDINATE_LEAVES
        return ((),) * self.dim if few else ((self.dim,),)

    def leaves(self, start: object) -> Leaves:
        """Coordinates of a start (*batch, dim), each a leaf if they are few."""
        if not isinstance(start, Tensor):
            raise DataError(
                f"a start is a tensor of shape (*batch, {self.dim}) or an earlier solution.state, "
                f"got {type(start).__name__}: use torch.tensor(..., dtype=torch.float64)"
            )
        if start.ndim < 1 or start.shape[-1] != self.dim:
            raise DataError(
                f"the start has shape {tuple(start.shape)}, expected (*batch, {self.dim})"
            )
        if start.dtype not in (torch.float32, torch.float64):
            raise DataError(f"the start has dtype {start.dtype}, expected float64 or float32")
        if self.dim > MOST_COORDINATE_LEAVES:
            return (start.clone(),)
        return tuple(column.contiguous() for column in start.unbind(-1))

    def batch(self, position: Leaves) -> tuple[int, ...]:
        """Shape of the batch of a position."""
        shape = position[0].shape
        return tuple(shape[:-1] if self.dim > MOST_COORDINATE_LEAVES else shape)

    def join(self, position: Leaves) -> Tensor:
        """Coordinates back to (*batch, dim)."""
        return position[0] if self.dim > MOST_COORDINATE_LEAVES else torch.stack(position, -1)

    def draw(self, step: int, seed: int, batch: tuple[int, ...]) -> Sample:
        """None: the problem is deterministic."""
        return None

    def _batched(self, theta: Tensor) -> Tensor:
        """The loss, which has been tried with one batch axis, for any number of them."""
        batch = theta.shape[:-1]
        flat = theta.reshape(-1, self.dim) if len(batch) > 1 else theta
        loss = self._loss(flat)
        if not isinstance(loss, Tensor) or loss.shape != flat.shape[:-1]:
            raise DataError(
                f"loss(theta) maps theta of shape {tuple(flat.shape)} to "
                f"{describe(loss, None)}, expected shape {tuple(flat.shape[:-1])}"
            )
        return loss.reshape(batch)

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """(*batch,), differentiable in the position."""
        return self._batched(self.join(position))

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """The residuals, differentiable in the position.

        Raises:
            CompatibilityError: The problem has none.
        """
        if self._residuals is None:
            raise CompatibilityError(
                f"the Gauss–Newton matrix needs residuals, and {self.problem!r} has none: give it "
                "residuals(theta), (*batch, dim) → (*batch, residuals), with loss ½|residuals|²"
            )
        theta = self.join(position)
        batch = theta.shape[:-1]
        residuals = self._residuals(theta.reshape(-1, self.dim) if len(batch) > 1 else theta)
        return Composition(residuals.reshape(*batch, residuals.shape[-1]))

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient by reverse differentiation."""
        leaves = tuple(leaf.detach().requires_grad_() for leaf in position)
        with torch.enable_grad():
            loss = self.losses(leaves, sample)
            if not loss.requires_grad:
                raise DataError(
                    f"the loss of {self.problem!r} does not depend on theta through torch "
                    "operations, so it has no gradient: no .detach(), .item() or numpy inside"
                )
            gradient = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        return Evaluation(loss.detach(), gradient)


def as_oracle(problem: object, dtype: torch.dtype, device: torch.device) -> Oracle:
    """The oracle of a problem: itself if it is one (a network), else of its loss."""
    return problem if _is_oracle(problem) else LossOracle(problem, dtype, device)


def _is_oracle(problem: object) -> TypeGuard[Oracle]:
    return hasattr(problem, "evaluate") and hasattr(problem, "leaves")


def drawn(draw: Callable[[int], Sample], step: Tensor) -> Sample:
    """The minibatch of each trajectory's own step.

    Args:
        draw: From a step number to its minibatch.
        step: Step numbers, (*batch,), int64.

    Returns:
        What is drawn; where step numbers differ, (*batch, size).
    """
    numbers = step.reshape(-1).tolist()
    samples = {number: draw(number) for number in sorted(set(numbers))}
    if len(samples) == 1:
        return samples[numbers[0]]
    drawn_for = [samples[number] for number in numbers]
    own = [sample for sample in drawn_for if sample is not None]
    if not own:
        return None
    return torch.stack([s if s.ndim == 1 else s[place] for place, s in enumerate(own)])
