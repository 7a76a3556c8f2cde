"""Settings of controls: the numbers that they may be."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.core.interfaces import Point
from flowopt.core.state import per_trajectory
from flowopt.errors import ConfigurationError


class Range(NamedTuple):
    """Numbers that a setting may be, in words and as a condition on a tensor of them."""

    meaning: str
    holds: Callable[[Tensor], Tensor]


POSITIVE = Range("is positive and finite", lambda x: (x > 0) & (x < math.inf))
BOUND = Range("is positive", lambda x: x > 0)
FACTOR = Range("lies between 0 and 1", lambda x: (x > 0) & (x < 1))
SHARE = Range("lies in [0, 1)", lambda x: (x >= 0) & (x < 1))
PART = Range("lies in (0, 1]", lambda x: (x > 0) & (x <= 1))
GROWTH = Range("is finite and at least 1", lambda x: (x >= 1) & (x < math.inf))
AT_LEAST_ONE = Range("is at least 1", lambda x: x >= 1)
STRETCH = Range("is finite and more than 1", lambda x: (x > 1) & (x < math.inf))


def numbers(name: str, value: object, allowed: Range) -> Tensor:
    """One number, or one per trajectory, as float64.

    Raises:
        ConfigurationError: It is no number, or none of those that are allowed.
    """
    tensor = real_tensor(name, value)
    if not bool(allowed.holds(tensor).all()):
        raise ConfigurationError(f"{name} {allowed.meaning}, got {value!r}")
    return tensor


def number(name: str, value: object, allowed: Range) -> Tensor:
    """A single number as 0-d float64: a tensor, which a kernel takes as an argument.

    Raises:
        ConfigurationError: As `numbers`, and for several.
    """
    tensor = numbers(name, value, allowed)
    if tensor.ndim:
        raise ConfigurationError(f"{name} is a single number, got {value!r}")
    return tensor


def bounded_steps(first_step: object, largest_step: object) -> tuple[Tensor, Tensor]:
    """The first step, one number or one per trajectory, and the bound of all.

    Raises:
        ConfigurationError: One is no positive number, or the first is beyond the bound.
    """
    first = numbers("first_step", first_step, POSITIVE)
    largest = number("largest_step", largest_step, BOUND)
    if bool((first > largest).any()):
        raise ConfigurationError(
            f"first_step={first_step!r} is beyond largest_step={largest_step!r}: change one of them"
        )
    return first, largest


def first_steps(first_step: Tensor, point: Point) -> Tensor:
    """The first step size of every trajectory, (*batch,) float64."""
    state = point.state
    first = first_step.to(state.time.device)
    return per_trajectory("first_step", first, state.batch).clone()
