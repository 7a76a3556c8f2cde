"""Printed formulas run on states: scalars once, then every leaf."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flowopt.core.state import Leaves, Owned, lift
from flowopt.symbolic.printing.torch_code import Compiled

# Sum over all elements of leaves like those of θ, (*batch,), float64: `State.total`.
Total = Callable[[Leaves], Tensor]


def evaluate_formulas(
    compiled: Compiled,
    scalars: Mapping[str, Tensor],
    leaves: Mapping[str, Leaves],
    total: Total,
    in_place: bool = False,
) -> tuple[Leaves, ...]:
    """Values of elementwise formulas.

    Args:
        compiled: The printed formulas.
        scalars: Name → (*batch,), float64.
        leaves: Name → leaves (*batch, *shape); `theta` gives their number and shapes.
        total: Sums leaves over their elements.
        in_place: Whether the values may be written over those of the variables of their names.

    Returns:
        For each formula, one tensor per leaf of θ.
    """
    scalars = _with_sums(compiled, scalars, leaves, total)
    coefficients = compiled.coefficients(*(scalars[name] for name in compiled.scalar_arguments))
    arguments = [leaves[name] for name in compiled.leaf_arguments]
    if in_place and compiled.update_lists is not None:
        numbers = [torch.as_tensor(value).item() for value in coefficients]
        if _fit(numbers, leaves["theta"]):
            written = [leaves[name] for name in compiled.written]
            return tuple(map(Owned, compiled.update_lists(*arguments, *numbers, *written)))
    lifted: dict = {}
    results = []
    for index, template in enumerate(leaves["theta"]):
        layout = (template.dtype, template.ndim)
        if layout not in lifted:
            lifted[layout] = [lift(value, template) for value in coefficients]
        values = compiled.update(*(a[index] for a in arguments), *lifted[layout])
        results.append([_spread(value, template) for value in values])
    return tuple(zip(*results, strict=True))


def _fit(numbers: list[float], leaves: Leaves) -> bool:
    """Whether torch's operations over lists take numbers; they refuse what overflows its type."""
    largest = max((abs(number) for number in numbers if number - number == 0.0), default=0.0)
    fits_all = largest <= torch.finfo(torch.float16).max
    return fits_all or all(largest <= torch.finfo(leaf.dtype).max for leaf in leaves)


def evaluate_scalars(
    compiled: Compiled,
    scalars: Mapping[str, Tensor],
    leaves: Mapping[str, Leaves],
    total: Total,
) -> tuple[Tensor, ...]:
    """Values of formulas that have one value per trajectory, each (*batch,), float64."""
    scalars = _with_sums(compiled, scalars, leaves, total)
    coefficients = compiled.coefficients(*(scalars[name] for name in compiled.scalar_arguments))
    return tuple(torch.zeros_like(scalars["t"]) + value for value in compiled.update(*coefficients))


def sum_formula(
    compiled: Compiled,
    scalars: Mapping[str, Tensor],
    leaves: Mapping[str, Leaves],
    total: Total,
) -> Tensor:
    """Sum over all elements of one elementwise formula, (*batch,), float64."""
    (values,) = evaluate_formulas(compiled, scalars, leaves, total)
    return total(values)


def _spread(value: Tensor | float, template: Tensor) -> Tensor:
    """A value for every element, also where the formula is the same for all of them."""
    if isinstance(value, Tensor) and value.shape == template.shape:
        return value
    return torch.zeros_like(template) + value


def _with_sums(
    compiled: Compiled,
    scalars: Mapping[str, Tensor],
    leaves: Mapping[str, Leaves],
    total: Total,
) -> Mapping[str, Tensor]:
    for name, inner in compiled.sums:
        scalars = {**scalars, name: sum_formula(inner, scalars, leaves, total)}
    return scalars
