"""What shapes a user's function bears, found by trying."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.errors import DataError

PROBES = 3
# By how much two identical calls of a loss may differ: sums on a GPU have no fixed order.
SAME_LOSS = 1e-5


def probed(loss: Callable, dim: int, dtype: torch.dtype, device: torch.device) -> Callable:
    """The loss in batched form, by what it does with (3, dim) and (dim,).

    Raises:
        DataError: It gives other shapes.
    """
    points = _points(dim, dtype, device)
    batched, batch_error = _try(loss, points)
    singles, single_error = zip(*(_try(loss, point) for point in points), strict=True)
    if all(isinstance(value, Tensor) and value.ndim == 0 for value in singles):
        return loss if _agree(batched, torch.stack(singles)) else _vectorised(loss, points)
    raise DataError(
        f"loss(theta) must map ({dim},) to a 0-d tensor and (3, {dim}) to (3,); it gave "
        f"{describe(singles[0], single_error[0])} and {describe(batched, batch_error)}"
    )


def _try(loss: Callable, theta: Tensor) -> tuple[object, Exception | None]:
    try:
        return loss(theta.clone()), None
    # The user's function may raise anything; the error is reported with the shapes.
    except Exception as error:
        return None, error


def describe(value: object, error: Exception | None) -> str:
    """A shape, a type or an error."""
    if error is not None:
        return f"{type(error).__name__} ({error})"
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def loss_of_residuals(residuals: Callable) -> Callable:
    """½|r|² as a function of θ."""
    return lambda theta: 0.5 * (residuals(theta) ** 2).sum(-1)


def probed_residuals(
    residuals: Callable, loss: Callable, dim: int, dtype: torch.dtype, device: torch.device
) -> Callable:
    """Residuals in batched form.

    Raises:
        DataError: They have other shapes, or half their squares do not sum to the loss.
    """
    points = _points(dim, dtype, device)
    batched, batch_error = _try(residuals, points)
    singles, single_error = zip(*(_try(residuals, point) for point in points), strict=True)
    if not all(isinstance(value, Tensor) and value.ndim == 1 for value in singles):
        raise DataError(
            f"residuals(theta) must map ({dim},) to (residuals,) and (3, {dim}) to (3, residuals); "
            f"it gave {describe(singles[0], single_error[0])} and {describe(batched, batch_error)}"
        )
    expected = torch.stack(singles)
    squares = 0.5 * (expected**2).sum(-1)
    offsets = loss(points) - squares
    margin = 1e-4 * float(squares.abs().max())
    if not torch.allclose(offsets, offsets[:1], rtol=1e-4, atol=margin, equal_nan=True):
        raise DataError(
            "half the squares of the residuals sum to the loss, up to a constant: here the "
            f"differences are {offsets.tolist()}; for a mean of n squares give residuals of "
            "(2/n)**0.5 times the errors"
        )
    return residuals if _agree(batched, expected) else _vectorised(residuals, points)


def _agree(batched: object, expected: Tensor) -> bool:
    """Whether a function of all points gave what it gives one by one."""
    if not isinstance(batched, Tensor) or batched.shape != expected.shape:
        return False
    if torch.equal(batched, expected):
        return True
    # Of the largest: a loss may have any unit, and sums round.
    rounding = 1e-6 * float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return torch.allclose(batched, expected, rtol=1e-4, atol=rounding, equal_nan=True)


def same_loss(first: Tensor, again: Tensor) -> bool:
    """Whether a loss is the same when it is called again, sums in another order apart."""
    again = again.detach().to(first)
    # A loss may have any unit: no number is small in itself.
    return torch.allclose(first, again, rtol=SAME_LOSS, atol=0.0, equal_nan=True)


def _points(dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    points = torch.linspace(-0.9, 1.1, PROBES * dim, dtype=dtype, device=device)
    return points.reshape(PROBES, dim)


def _vectorised(loss: Callable, points: Tensor) -> Callable:
    """The loss of one point under `torch.vmap`, which is tried at some points."""
    _, failure = _try(torch.vmap(loss), points)

    def batched(theta: Tensor) -> Tensor:
        if theta.ndim == 1:
            return loss(theta)
        if failure is not None:
            raise DataError(
                f"the loss works for one point only and can not be vectorised: {failure} Write it "
                "for theta of shape (*batch, dim), with .sum(-1) for .sum(), torch.where for if, "
                "and no random numbers"
            ) from failure
        flat = torch.vmap(loss)(theta.reshape(-1, theta.shape[-1]))
        return flat.reshape(*theta.shape[:-1], *flat.shape[1:])

    return batched
