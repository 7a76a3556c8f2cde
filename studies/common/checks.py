"""What settings may be, said in the words of the command line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from flowopt.errors import ConfigurationError
from studies.common.names import unknown_name


def check_known(kind: str, names: Iterable[str], choices: Iterable[str]) -> None:
    """Raises `ConfigurationError` for a name that is none of the choices.

    Args:
        kind: What the names stand for, such as "data set".
        names: What came.
        choices: The names that exist.
    """
    known = tuple(choices)
    for name in names:
        if name not in known:
            raise ConfigurationError(unknown_name(kind, name, known))


def check_once(kind: str, values: Sequence[object]) -> None:
    """Raises `ConfigurationError` for what came twice, of which results would not be told apart.

    Args:
        kind: What the values stand for, such as "method".
        values: What came.
    """
    for value in values:
        if values.count(value) > 1:
            raise ConfigurationError(f"{kind} {value!r} came twice, expected once: drop one")


def check_least(config: object, least: Mapping[str, float]) -> None:
    """Raises `ConfigurationError` for a setting below its least value; None is left open.

    Args:
        config: Has the settings as attributes.
        least: Setting → its least value.
    """
    for name, number in least.items():
        value = getattr(config, name)
        if value is not None and not value >= number:
            raise ConfigurationError(f"{name} came as {value}, expected at least {number}")


def check_positive(config: object, *names: str) -> None:
    """Raises `ConfigurationError` for settings that are no positive, finite numbers.

    Args:
        config: Has the settings as attributes: a number, several or None, which is left open.
        names: Of the settings.
    """
    for name in names:
        value = getattr(config, name)
        several = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(0 < number < math.inf for number in several):
            expected = "positive numbers" if isinstance(value, tuple) else "a positive number"
            raise ConfigurationError(f"{name} came as {value}, expected {expected}")
