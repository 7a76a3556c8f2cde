"""Optimizers by the names of the command line: `adam`, `heavy_ball:BAOAB`, `my_flow.txt@0.1`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import flowopt as fo
from flowopt.classic import Method
from flowopt.errors import ConfigurationError, DataError, DefinitionError
from flowopt.registry import FLOWS, METHODS, SCHEMES, Scheme
from studies.common.names import unknown_name

STEP_SIZE_OF_A_FILE = 0.1
MOST_BYTES_OF_A_FILE = 100_000
SPECIFICATION = re.compile(r"(?P<name>.+?)(?::(?P<scheme>[^:@/\\]*))?(?:@(?P<step>[^@/\\]*))?")
FORMS = "'adam', 'adam@0.01', 'heavy_ball:BAOAB', 'heavy_ball:rk4@0.1' or 'my_flow.txt:OBA@0.2'"


@dataclass(frozen=True)
class Candidate:
    """A flow, a scheme and a step size under a label.

    Attributes:
        label: As the user wrote it, the folder of a file left out.
        flow: The equation.
        scheme: How it becomes a step.
        step_size: h, time per step.
        method: The published optimizer that the three come from, if any.
        text: Content of the file that defines the flow, if any.
    """

    label: str
    flow: fo.Flow
    scheme: Scheme
    step_size: float
    method: Method | None = None
    text: str | None = None

    @property
    def word(self) -> str:
        """The splitting word, or the name of the scheme."""
        return scheme_name(self.scheme)

    @property
    def cost_per_step(self) -> int:
        """In forward passes."""
        return fo.forward_passes({"gradients": self.scheme.gradient_evaluations(self.flow)})


def scheme_name(scheme: object) -> str:
    """The word of a splitting, else the name by which the registry knows a scheme."""
    if isinstance(scheme, fo.Splitting):
        return scheme.word
    names = [name for name, build in SCHEMES.items() if repr(build()) == repr(scheme)]
    return names[0] if names else repr(scheme)


def candidate(specification: str, *, others: Iterable[str] = ()) -> Candidate:
    """What a specification stands for.

    Args:
        specification: NAME, NAME:SCHEME, NAME@STEP or NAME:SCHEME@STEP. NAME alone is a method
            of the registry or else a flow with its usual word; with a SCHEME, a word or
            a name of the registry, it is a flow. A NAME that ends in .txt or contains a slash is
            a file in the text form of flows. STEP is the learning rate of a method and the step
            size h of a flow.
        others: Names without a scheme that the caller reads itself, for the message alone.

    Returns:
        The candidate, flow and scheme checked against each other.

    Raises:
        ConfigurationError: A name is unknown, or the step is no positive number.
        CompatibilityError: Flow and scheme do not fit.
        DataError: The file can not be read.
        DefinitionError: The file defines no flow.
    """
    match = SPECIFICATION.fullmatch(specification.strip())
    if match is None:
        raise ConfigurationError(f"{specification!r} names no optimizer, expected {FORMS}")
    name, scheme, step_size = match["name"], match["scheme"], step_size_of(match["step"])
    if _is_file(name):
        found = _from_file(Path(name), scheme, step_size)
    elif scheme is None and name in METHODS:
        found = _from_method(name, step_size)
    elif name in FLOWS:
        found = _from_flow(name, scheme, step_size)
    else:
        known = FLOWS if scheme is not None else {*METHODS, *FLOWS, *others}
        kind = "flow" if scheme is not None else "method or flow"
        raise ConfigurationError(unknown_name(kind, name, known))
    found.scheme.check(found.flow)
    if step_size is None:
        return found
    return replace(found, label=f"{found.label}@{match['step']}")


def step_size_of(text: str | None) -> float | None:
    """The number after an '@'; None where there is none.

    Raises:
        ConfigurationError: It is no positive number.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(
            f"step size {text!r} after '@', expected a positive number such as 0.1"
        )
    return value


def _is_file(name: str) -> bool:
    return name.lower().endswith(".txt") or "/" in name or "\\" in name


def _from_method(name: str, rate: float | None) -> Candidate:
    method = METHODS[name]()
    if rate is not None:
        method = Method(method.rule, {**method.settings, "lr": rate})
    return Candidate(name, method.flow, method.scheme, float(method.step_size), method)


def _from_flow(name: str, scheme: str | None, step_size: float | None) -> Candidate:
    entry = FLOWS[name]
    word = entry.words[0] if scheme is None else scheme
    flow = cast(fo.Flow, entry.build())
    return Candidate(f"{name}:{word}", flow, _scheme(word), step_size or entry.step_size)


def _from_file(path: Path, scheme: str | None, step_size: float | None) -> Candidate:
    text = _content(path)
    try:
        flow = fo.Flow.from_text(text, name=path.stem)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from error
    word = "".join(flow.letters) if scheme is None else scheme
    label = f"{path.name}:{word}"
    return Candidate(label, flow, _scheme(word), step_size or STEP_SIZE_OF_A_FILE, text=text)


def _content(path: Path) -> str:
    expected = "expected a text file with lines such as 'A: dtheta/dt = -g'"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES_OF_A_FILE + 1)
    except OSError as error:
        raise DataError(
            f"{path} can not be read ({error.strerror or error}), {expected}"
        ) from error
    if len(content) > MOST_BYTES_OF_A_FILE:
        raise DataError(f"{path} has more than {MOST_BYTES_OF_A_FILE} bytes, {expected}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}), {expected}") from error


def _scheme(name: str) -> Scheme:
    if name in SCHEMES:
        return SCHEMES[name]()
    if re.fullmatch(r"[A-Z()]+", name):
        return fo.Splitting(name)
    raise ConfigurationError(
        unknown_name("scheme", name, SCHEMES)
        + ", and splitting words, which are written in capital letters, as in BAOAB or '(AO)B(AO)'"
    )
