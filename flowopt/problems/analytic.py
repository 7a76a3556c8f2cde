"""Networks of one neuron, with two parameters, whose critical points are known exactly.

One neuron σ(w·x + b) on two data has the loss G₁(z₁) + G₂(z₂), where z₁ and z₂ are its inputs at
the two data, linear in θ = (w, b). So its critical points are the pairs of those of G₁ and G₂.

Reference:
    Bensaid, "Deterministic optimisation in deep learning from a continuous and energetic point of
    view"; polynomial activations as in his benchmarks.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from flowopt.errors import ConfigurationError
from flowopt.problems.landscapes import CriticalPoint, Landscape
from flowopt.problems.neurons import (
    GELU_SCALE,
    POLY_TWO,
    Function,
    Polynomial,
    Residual,
    Squared,
    bell_wall,
    bell_width,
    double_exponential,
    flat_loss,
    flat_residual,
    gelu,
    rational_loss,
)
from flowopt.problems.valleys import WITH_CURVES

GOLDEN = (1 + math.sqrt(5)) / 2
# W(1/e): (1 + z)·eᶻ⁺¹ = 1 has the root z = −(1 + W(1/e)), where z/(1 + e⁻ᶻ) turns.
LAMBERT = 0.2784645427610738

# Rows: coefficients of z₁ and of z₂ in (w, b). One neuron at x = 0 and 1, and at x = −1 and 1.
Forms = tuple[tuple[int, int], tuple[int, int]]
COUPLED: Forms = ((0, 1), (1, 1))
ORTHOGONAL: Forms = ((-1, 1), (1, 1))


@dataclass(frozen=True)
class Part:
    """One summand G(z) of a loss.

    Attributes:
        function: Elementwise.
        critical: Where G' = 0, all within |z| ≤ `reach`.
        degenerate: Critical point → its kind, where G'' = 0: "minimum", "maximum", "inflection".
        reach: Bound of z up to which the list is complete.
        residual: r(z) with G = ½r²; None where there is no smooth one.
    """

    function: Function
    critical: tuple[float, ...]
    degenerate: dict[float, str]
    reach: float = math.inf
    residual: Function | None = None


@dataclass(frozen=True)
class Family:
    """A loss G₁(z₁) + G₂(z₂) with z = forms·(w, b) on the square |w|, |b| ≤ half_width."""

    summary: str
    parts: tuple[Part, Part]
    half_width: float = 3.0
    forms: Forms = COUPLED


def _twice(
    function: Function,
    *critical: float,
    degenerate: dict[float, str] | None = None,
    reach: float = math.inf,
    residual: Function | None = None,
) -> tuple[Part, Part]:
    part = Part(function, critical, degenerate or {}, reach, residual)
    return part, part


def _neuron(activation: Function, *critical: float, **more: Any) -> tuple:
    return _twice(Squared(activation), *critical, residual=Residual(activation), **more)


def _tanh_parts(first: float, second: float) -> tuple[Part, Part]:
    one, other = (
        Part(Squared(torch.tanh, y), (math.atanh(y),), {}, residual=Residual(torch.tanh, y))
        for y in (first, second)
    )
    return one, other


_HALF_PI = math.pi / 2
_WELL = math.sqrt(2 * math.log(1.5))
FAMILIES: dict[str, Family] = {
    "poly_two": Family(
        "Neuron z² − 1: isolated regular critical points, quartic growth",
        _neuron(POLY_TWO, -1, 0, 1),
    ),
    "poly_three": Family(
        "Neuron 2z³ − 3z² + 5: steep and flat minima of different values",
        _neuron(Polynomial((2, -3, 0, 5)), -1, 0, 1),
    ),
    "poly_four": Family(
        "Neuron z⁴ − 2z² + 3: minima above zero, where the Gauss–Newton matrix vanishes",
        _neuron(Polynomial((1, 0, -2, 0, 3)), -1, 0, 1),
    ),
    "poly_five": Family(
        "Neuron (z − 3)(z + 1)²(z² − 3z + 4): singular Hessians, non-strict saddles",
        _neuron(
            Polynomial((1, -4, 2, 8, -11, -12)),
            *(-1, 1, 11 / 5, 3),
            degenerate={-1: "minimum", 1: "inflection"},
        ),
        half_width=5.0,
    ),
    "poly_eight": Family(
        "Neuron of degree 8: degenerate minima and a degenerate maximum",
        _neuron(
            Polynomial((35, -360, 1540, -3528, 4620, -3360, 1120, 0, 1)),
            *(0, 1, 2),
            degenerate={1: "maximum", 2: "minimum"},
        ),
    ),
    "rat_two": Family(
        "Rational neuron, cross-entropy: a plateau towards infinity",
        _twice(rational_loss, GOLDEN, 1 - GOLDEN),
        half_width=2.0,
    ),
    "cloche": Family(
        "Neuron exp(−z²/2), cross-entropy: an infinite wall between two minima",
        (Part(bell_wall, (-_WELL, _WELL), {}), Part(bell_width, (0,), {})),
        half_width=2.0,
        forms=((1, 1), (1, 0)),
    ),
    "silu": Family(
        "Neuron z/(1 + e⁻ᶻ): an exponential plateau, lower than any saddle at infinity",
        _neuron(silu, 0, -(1 + LAMBERT)),
    ),
    "gelu": Family(
        "Neuron z/(1 + exp(−1.702 z)): as silu, scaled",
        _neuron(gelu, 0, -(1 + LAMBERT) / GELU_SCALE),
    ),
    "sine": Family(
        "Neuron sin z: a lattice of critical points, those of the square listed",
        _neuron(torch.sin, *(k * _HALF_PI for k in range(-7, 8)), reach=7.5 * _HALF_PI),
    ),
    "tanh": Family(
        "Neuron tanh z with targets ½ and −¼: one minimum, saturation", _tanh_parts(0.5, -0.25)
    ),
    "square": Family(
        "Neuron z²: a minimum of order 4, sublinear rates",
        _neuron(Polynomial((1, 0, 0)), 0, degenerate={0: "minimum"}),
    ),
    "cube": Family(
        "Neuron z³: a minimum of order 6, sublinear rates",
        _neuron(Polynomial((1, 0, 0, 0)), 0, degenerate={0: "minimum"}),
    ),
    "exp_four": Family(
        "Neuron exp((z⁴ − 2z²)/2): super-exponential growth", _neuron(double_exponential, -1, 0, 1)
    ),
    "flat": Family(
        "exp(−1/z²): a minimum at which all derivatives vanish",
        _twice(flat_loss, 0, degenerate={0: "minimum"}, residual=flat_residual),
    ),
}


def analytic(name: str, *, orthogonal: bool = False) -> Landscape:
    """A loss of two parameters (w, b) with all its critical points.

    One neuron on two data, unless its name says otherwise: "one_datum" has lines of minima and of
    maxima, "bilinear" is the deep linear network ½ (w₁w₂ − 1)² with a hyperbola of minima.

    Args:
        name: "poly_two", "poly_three", … as `ANALYTIC` lists them.
        orthogonal: Whether the data lie at x = −1 and 1 instead of 0 and 1: then the gradient
            flows of the two inputs are independent, and basins are products of intervals.

    Raises:
        ConfigurationError: No such name, or no data that could be moved.
    """
    if name not in ANALYTIC:
        raise ConfigurationError(f"no analytic problem {name!r}: there are {list(ANALYTIC)}")
    family = FAMILIES.get(name)
    if orthogonal and (family is None or family.forms != COUPLED):
        names = [known for known, other in FAMILIES.items() if other.forms == COUPLED]
        raise ConfigurationError(f"{name!r} has no orthogonal twin: these have one: {names}")
    if family is None:
        return WITH_CURVES[name]()
    if orthogonal:
        return _landscape(f"orthogonal_{name}", family, ORTHOGONAL)
    return _landscape(name, family, family.forms)


@dataclass(frozen=True)
class Summed:
    """G₁(z₁) + G₂(z₂) with z = forms·θ."""

    functions: tuple[Function, ...]
    forms: Forms

    def __call__(self, theta: Tensor) -> Tensor:
        """(*batch, 2) → (*batch,)."""
        (first, second), (one, other) = self.functions, _inputs(self.forms, theta)
        return first(one) + second(other)


@dataclass(frozen=True)
class SideBySide:
    """(r₁(z₁), r₂(z₂)) with z = forms·θ."""

    functions: tuple[Function, ...]
    forms: Forms

    def __call__(self, theta: Tensor) -> Tensor:
        """(*batch, 2) → (*batch, 2)."""
        pairs = zip(self.functions, _inputs(self.forms, theta), strict=True)
        return torch.stack([function(z) for function, z in pairs], -1)


def _inputs(forms: Forms, theta: Tensor) -> tuple[Tensor, Tensor]:
    (a, b), (c, d) = forms
    weight, bias = theta.unbind(-1)
    return _form(a, b, weight, bias), _form(c, d, weight, bias)


def _form(a: int, b: int, weight: Tensor, bias: Tensor) -> Tensor:
    """a·w + b·b without multiplications, which here are all by −1, 0 or 1."""
    if not a:
        return bias
    if not b:
        return weight
    return weight + bias if a > 0 else bias - weight


def _landscape(name: str, family: Family, forms: Forms) -> Landscape:
    functions = [part.function for part in family.parts]
    roots = [part.residual for part in family.parts if part.residual is not None]
    points = [
        _pair(forms, one, other)
        for one in _turns(family.parts[0])
        for other in _turns(family.parts[1])
    ]
    if math.inf not in (part.reach for part in family.parts):
        points = [p for p in points if max(map(abs, p.position)) <= family.half_width]
    half_width = family.half_width
    summary = family.summary if forms == family.forms else f"{family.summary}; orthogonal data"
    domain = -half_width, half_width
    return Landscape(
        name,
        2,
        Summed(tuple(functions), forms),
        tuple(points),
        domain=domain,
        summary=summary,
        residuals=SideBySide(tuple(roots), forms) if roots else None,
    )


@dataclass(frozen=True)
class _Turn:
    """A critical point of one summand."""

    place: float
    value: float
    curvature: float
    kind: str


def _turns(part: Part) -> list[_Turn]:
    turns = []
    for place in part.critical:
        z = torch.tensor(float(place), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            value = part.function(z)
            (slope,) = torch.autograd.grad(value, z, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, z)
        kind = part.degenerate.get(place) or ("minimum" if curvature > 0 else "maximum")
        second = 0.0 if place in part.degenerate else curvature.item()
        turns.append(_Turn(float(place), value.item(), second, kind))
    return turns


def _pair(forms: Forms, first: _Turn, second: _Turn) -> CriticalPoint:
    """Two critical points of the summands are one of their sum."""
    (a, b), (c, d) = forms
    determinant = a * d - b * c
    position = (
        (d * first.place - b * second.place) / determinant + 0.0,
        (a * second.place - c * first.place) / determinant + 0.0,
    )
    kinds = {first.kind, second.kind}
    if len(kinds) == 1 and "inflection" not in kinds:
        kind = first.kind
    else:
        kind = "saddle" if min(first.curvature, second.curvature) < 0 else "non-strict saddle"
    # H = Mᵀ diag(G″) M is a symmetric 2 × 2 matrix.
    one, other = first.curvature, second.curvature
    diagonal = a * a * one + c * c * other, b * b * one + d * d * other
    mean, half = (diagonal[0] + diagonal[1]) / 2, (diagonal[0] - diagonal[1]) / 2
    radius = math.hypot(half, a * b * one + c * d * other)
    eigenvalues = mean - radius, mean + radius
    # The eigenvalues' product is det² · G₁″ · G₂″: what vanishes there is zero here, to the bit.
    if 0.0 in (one, other):
        eigenvalues = tuple(sorted((0.0, 2 * mean)))
    return CriticalPoint(position, first.value + second.value, kind, eigenvalues)


ANALYTIC = (*FAMILIES, *WITH_CURVES)
