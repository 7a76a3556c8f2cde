"""Settings from the command line: `key=value` over a frozen dataclass."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from flowopt.errors import ConfigurationError
from studies.common.names import unknown_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def apply_settings(config: Config, settings: Iterable[str]) -> Config:
    """A copy of a configuration with some of its fields set from text.

    Args:
        config: Instance of a frozen dataclass whose fields are int, float, str, bool, a tuple
            of one of these (`tuple[int, ...]`), or one of all these or None.
        settings: `key=value` each, the key a field's name; a tuple's value is separated by
            commas, and empty for an empty tuple.

    Returns:
        The new configuration; the old one if there are no settings.

    Raises:
        ConfigurationError: No `=`, an unknown or repeated key, a value that is none of the
            field's type.
    """
    annotations = get_type_hints(type(config))
    fields = [field.name for field in dataclasses.fields(config) if field.init]
    values: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        key = key.strip()
        if not separator:
            raise ConfigurationError(f"setting {setting!r} has no '=', expected key=value")
        if key not in fields:
            raise ConfigurationError(unknown_name("setting", key, fields))
        if key in values:
            raise ConfigurationError(f"setting {key!r} came twice, expected once: drop one")
        values[key] = _parsed(key, text.strip(), annotations[key])
    return dataclasses.replace(config, **values) if values else config


def _parsed(key: str, text: str, annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        alternatives = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        if len(alternatives) == 1:
            return None if text.lower() == "none" else _parsed(key, text, alternatives[0])
    if get_origin(annotation) is tuple:
        entry, *rest = get_args(annotation)
        if rest == [Ellipsis]:
            return tuple(_parsed(key, part.strip(), entry) for part in text.split(",") if text)
    if annotation not in _READERS:
        raise TypeError(f"setting {key!r} has the type {annotation}, which no text can give")
    expected, read = _READERS[annotation]
    try:
        return read(text)
    except ValueError as error:
        raise ConfigurationError(
            f"setting {key!r} came as {text!r}, expected {expected}"
        ) from error


def _read_float(text: str) -> float:
    number = float(text)
    if number != number:
        raise ValueError("NaN is no setting")
    return number


def _read_boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _BOOLEANS[text.lower()]


def _read_text(text: str) -> str:
    if not text:
        raise ValueError("nothing came")
    return text


_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number such as 3", int),
    float: ("a number such as 0.1", _read_float),
    str: ("some text", _read_text),
    bool: (f"one of {', '.join(_BOOLEANS)}", _read_boolean),
}
