"""`flowopt list`: everything that has a name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

import flowopt as fo
from flowopt.registry import CONTROLS, FLOWS, METHODS, PARTITIONED, PROBLEMS, SCHEMES
from studies.common.tables import plain_table


def listing(studies: Mapping[str, str]) -> str:
    """Tables of flows, schemes, controls, methods, problems and studies.

    Args:
        studies: Name → package.
    """
    sections = {
        "Flows (equations)": _flows(),
        "Blocks (each with its own equation, two parameters)": _blocks(),
        "Schemes (how a flow becomes a step)": _schemes(),
        "Controls (how far to step)": _controls(),
        "Methods (published optimizers: flow, word and step size)": _methods(),
        "Problems": _problems(),
        "Studies": _studies(studies),
    }
    return "\n\n".join(f"{title}\n{_indented(table)}" for title, table in sections.items())


def summary(thing: object) -> str:
    """First line of a docstring, without its full stop."""
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".")


def flow_summary(name: str) -> str:
    """What a flow of the registry is."""
    return summary(getattr(fo.flows, name, None))


def method_summary(name: str) -> str:
    """What a method of the registry is."""
    return summary(getattr(fo.classic, METHODS[name]().name, None))


def _flows() -> str:
    rows = []
    for name, entry in FLOWS.items():
        letters = " ".join(entry.build().letters)
        rows.append((name, letters, ", ".join(entry.words), flow_summary(name)))
    return plain_table(("name", "letters", "words", "summary"), rows)


def _blocks() -> str:
    rows = []
    for name, entry in PARTITIONED.items():
        blocks = []
        flow = entry.build()
        assert isinstance(flow, fo.PartitionedFlow)
        for part in flow.parts:
            own = {letter: word for letter, word in part.meanings.items() if letter != word}
            means = ", ".join(f"{letter}: {word}" for letter, word in own.items())
            blocks.append(f"{part.flow.name} ({means})" if means else part.flow.name)
        rows.append((name, ", ".join(entry.words), " + ".join(blocks)))
    return plain_table(("name", "words", "blocks"), rows)


def _schemes() -> str:
    flow = FLOWS["gradient_flow"].build()
    rows = [("WORD", "by word", "by word", summary(fo.Splitting))]
    for name, build in SCHEMES.items():
        scheme = build()
        order, gradients = scheme.order(flow), scheme.gradient_evaluations(flow)
        text = summary(type(scheme))
        if isinstance(scheme, fo.RungeKutta):
            text += f": {scheme.tableau.reference}"
        rows.append((name, f"{order:g}", f"{gradients}", text))
    return plain_table(("name", "order", "gradients per step", "summary"), rows)


def _controls() -> str:
    rows = [(name, summary(type(build(1.0)))) for name, build in CONTROLS.items()]
    return plain_table(("name", "summary"), rows)


def _methods() -> str:
    rows = []
    for name, build in METHODS.items():
        method = build()
        settings = ", ".join(
            f"{key}={float(value):g}" for key, value in method.settings.items() if float(value)
        )
        rows.append((name, method.scheme.word, settings, method_summary(name)))
    return plain_table(("name", "word", "settings", "summary"), rows)


def _problems() -> str:
    rows = []
    for name, build in PROBLEMS.items():
        problem = build()
        about = problem.summary or summary(getattr(fo.problems, name, None))
        rows.append((name, f"{problem.dim}", about))
    return plain_table(("name", "parameters", "summary"), rows)


def _studies(studies: Mapping[str, str]) -> str:
    rows = [(name, summary(importlib.import_module(package))) for name, package in studies.items()]
    return plain_table(("name", "summary"), rows)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
