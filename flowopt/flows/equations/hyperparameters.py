"""Values of hyperparameters: exactly the names that equations leave open."""

import math
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

from flowopt.errors import DefinitionError
from flowopt.flows.equations.code import damping_of
from flowopt.symbolic.language import Equations


def checked_hyperparameters(
    flow: str, equations: Equations, values: Mapping[str, float | Tensor]
) -> dict[str, Tensor]:
    """Float64 tensors for exactly the names that the equations leave open."""
    damping_of(equations)
    expected = equations.hyperparameters
    missing = [name for name in expected if name not in values]
    unknown = [name for name in values if name not in expected]
    if missing or unknown:
        raise DefinitionError(
            f"flow {flow!r} has hyperparameters {list(expected)}; "
            + (f"missing: {missing}. " if missing else "")
            + (f"unknown: {unknown}. " if unknown else "")
            + "Give each a value by keyword, as in friction=1.0; variables of the method are "
            + f"{[v.name for v in (*equations.variables, *equations.scalars)]}"
        )
    return {name: number(flow, name, values[name]) for name in expected}


def number(flow: str, name: str, value: object) -> Tensor:
    """A value as a float64 tensor; raises `DefinitionError` for what is no real number."""
    real = isinstance(value, Real | Tensor) and not isinstance(value, bool)
    if not real or (isinstance(value, Tensor) and value.is_complex()):
        raise DefinitionError(
            f"flow {flow!r}: {name} = {value!r} is no real number: "
            "give a float or a (*batch,) tensor"
        )
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if isinstance(value, Real) and math.isnan(value):
        raise DefinitionError(f"flow {flow!r}: {name} is not a number (nan)")
    return tensor


def check_numbers(flow: str, values: Mapping[str, Tensor]) -> None:
    """Raises `DefinitionError` for what is not a number."""
    # Traced code takes values over as they are: there nothing may depend on what they hold.
    for name, value in values.items():
        if bool(torch.isnan(value).any()):
            raise DefinitionError(f"flow {flow!r}: {name} is not a number (nan)")


def check_not_negative(flow: str, **values: float | Tensor) -> None:
    """Raises `DefinitionError` for numbers below zero."""
    for name, value in values.items():
        if bool((number(flow, name, value) < 0).any()):
            raise DefinitionError(f"flow {flow!r}: {name} is not negative, got {value!r}")
