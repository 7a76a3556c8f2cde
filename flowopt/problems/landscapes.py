"""Small landscapes with known critical points."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.errors import DataError


@dataclass(frozen=True)
class CriticalPoint:
    """A point where the gradient vanishes.

    Attributes:
        position: (dim,).
        value: Loss there.
        kind: "minimum", "maximum", "saddle" where the Hessian has a negative eigenvalue and no
            maximum is meant, "non-strict saddle" where it has none, or "degenerate" where neither
            the Hessian nor we can tell.
        eigenvalues: Of the Hessian, ascending.
    """

    position: tuple[float, ...]
    value: float
    kind: str
    eigenvalues: tuple[float, ...]


@dataclass(frozen=True)
class CriticalCurve:
    """A curve on which the gradient vanishes.

    Attributes:
        position: Parameter of the curve, (*batch,) → (*batch, dim).
        value: Loss there.
        kind: As of a `CriticalPoint`.
        eigenvalues: Of the Hessian, ascending: (*batch,) → (*batch, dim).
    """

    position: Callable[[Tensor], Tensor]
    value: float
    kind: str
    eigenvalues: Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class Landscape:
    """A loss with a name.

    Attributes:
        name: In the registry.
        dim: Number of parameters.
        function: (*batch, dim) → (*batch,).
        critical_points: All isolated ones; where there are infinitely many, those in the domain.
        critical_curves: All others.
        domain: Lowest and highest value of each coordinate where studies begin, if there is a
            usual one.
        summary: What it is, in a line.
        residuals: (*batch, dim) → (*batch, residuals), half of whose squares sum to the loss; None
            for losses that are no sum of squares.
    """

    name: str
    dim: int
    function: Callable[[Tensor], Tensor]
    critical_points: tuple[CriticalPoint, ...]
    critical_curves: tuple[CriticalCurve, ...] = ()
    domain: tuple[float, float] | None = None
    summary: str = ""
    residuals: Callable[[Tensor], Tensor] | None = None

    def __repr__(self) -> str:
        """Name and number of parameters."""
        return f"<problem {self.name} of {self.dim} parameter{'s' if self.dim > 1 else ''}>"

    def loss(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch,)."""
        return self.function(theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch, dim)."""
        with torch.enable_grad():
            position = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.function(position).sum(), position)
        return gradient


@dataclass(frozen=True, eq=False)
class Axes:
    """½ Σ kᵢ θᵢ²."""

    curvatures: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch,)."""
        return (0.5 * self.curvatures.to(theta) * theta**2).sum(-1)


@dataclass(frozen=True, eq=False)
class Form:
    """½ θᵀKθ for a symmetric matrix K."""

    matrix: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch,)."""
        return 0.5 * ((theta @ self.matrix.to(theta)) * theta).sum(-1)


@dataclass(frozen=True, eq=False)
class Map:
    """Mθ for a matrix M."""

    matrix: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """(*batch, dim) → (*batch, rows)."""
        return theta @ self.matrix.to(theta).mT


def quadratic(curvatures: Sequence[float] | Tensor) -> Landscape:
    """½ Σ kᵢ θᵢ² for curvatures k, or ½ θᵀKθ for a symmetric matrix K.

    Raises:
        DataError: The curvatures are neither a vector nor a symmetric matrix, or not finite.
    """
    matrix = real_tensor("curvatures", curvatures, DataError)
    if not bool(torch.isfinite(matrix).all()):
        raise DataError(f"curvatures are finite, got {curvatures!r}")
    if matrix.ndim == 1 and len(matrix):
        loss, root = Axes(matrix), torch.diag(matrix.sqrt())
        eigenvalues = matrix.sort().values
    elif matrix.ndim == 2 and matrix.numel() and torch.equal(matrix, matrix.T):
        loss = Form(matrix)
        eigenvalues, vectors = torch.linalg.eigh(matrix)
        # What is known no better than that is 0, as of AᵀA with fewer rows than columns.
        rounding = len(matrix) * torch.finfo(matrix.dtype).eps * eigenvalues.abs().max()
        eigenvalues = torch.where(eigenvalues.abs() <= rounding, 0.0, eigenvalues)
        root = eigenvalues.sqrt()[:, None] * vectors.mT
    else:
        raise DataError(
            f"curvatures of shape {tuple(matrix.shape)}: give a vector or a symmetric matrix"
        )
    dim = len(matrix)
    origin = _critical((0.0,) * dim, 0.0, tuple(eigenvalues.tolist()))
    squares = bool((eigenvalues >= 0).all())
    return Landscape("quadratic", dim, loss, (origin,), residuals=Map(root) if squares else None)


def _double_well(theta: Tensor) -> Tensor:
    return ((theta**2 - 1.0) ** 2).sum(-1)


def _double_well_residuals(theta: Tensor) -> Tensor:
    return math.sqrt(2.0) * (theta**2 - 1.0)


def double_well() -> Landscape:
    """(θ² − 1)² in one dimension: minima at ±1, a maximum at 0."""
    return Landscape(
        "double_well",
        1,
        _double_well,
        (
            _critical((-1.0,), 0.0, (8.0,)),
            _critical((0.0,), 1.0, (-4.0,)),
            _critical((1.0,), 0.0, (8.0,)),
        ),
        residuals=_double_well_residuals,
    )


def _rosenbrock(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def _rosenbrock_residuals(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return math.sqrt(2.0) * torch.stack([1.0 - x, 10.0 * (y - x**2)], -1)


def rosenbrock() -> Landscape:
    """(1 − x)² + 100 (y − x²)²: one minimum at (1, 1), at the end of a curved valley.

    Reference:
        Rosenbrock 1960, Comput. J. 3(3), 175.
    """
    root = 250601.0**0.5
    minimum = _critical((1.0, 1.0), 0.0, (501.0 - root, 501.0 + root))
    return Landscape("rosenbrock", 2, _rosenbrock, (minimum,), residuals=_rosenbrock_residuals)


def _critical(
    position: tuple[float, ...], value: float, eigenvalues: tuple[float, ...]
) -> CriticalPoint:
    up = any(eigenvalue > 0 for eigenvalue in eigenvalues)
    down = any(eigenvalue < 0 for eigenvalue in eigenvalues)
    kind = "saddle" if up and down else "minimum" if min(eigenvalues) > 0 else "maximum"
    if not (up and down) and 0.0 in eigenvalues:
        kind = "degenerate"
    return CriticalPoint(position, value, kind, eigenvalues)
