"""Pages of the documentation that the registry holds: written anew at each build."""

import inspect
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import flowopt as fo
from flowopt import registry
from studies.command.listing import summary
from studies.command.showing import showing

METHOD_COLUMNS = ("word", "step size", "rates × step size")


def write(folder: Path) -> None:
    """Writes the pages of flows, methods, schemes, controls, problems and public names."""
    shutil.rmtree(folder, ignore_errors=True)
    _write_shown(folder, "Flows", registry.FLOWS, lambda name: getattr(fo.flows, name, None))
    _write_shown(folder, "Methods", registry.METHODS, _method, METHOD_COLUMNS)
    _write(folder / "schemes.md", _schemes())
    _write(folder / "controls.md", _documented("Step controls", registry.CONTROLS, _control))
    _write(folder / "problems.md", _problems())
    _write(folder / "api.md", _api())


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _method(name: str) -> object:
    return getattr(fo.classic, registry.METHODS[name]().name, None)


def _control(name: str) -> type:
    return type(registry.CONTROLS[name](1.0))


def _method_cells(name: str) -> tuple[str, str, str]:
    """The word of a method, and what its rule makes of the classic hyperparameters."""
    rule = registry.METHODS[name]().rule
    rates = [f"{n} = {rule.hyperparameters[n]}" for n in sorted(rule.per_step)]
    return f"`{rule.scheme!r}`", f"`h = {rule.step_size}`", ", ".join(f"`{r}`" for r in rates)


def _write_shown(
    folder: Path,
    title: str,
    entries: Iterable[str],
    find: Callable,
    columns: tuple[str, ...] = (),
) -> None:
    """One page for each entry: what `flowopt show` says, with the equations typeset."""
    kind = title.lower()
    rows = []
    for name in entries:
        cells = [f"[{name}]({kind}/{name}.md)", summary(find(name))]
        cells += _method_cells(name) if columns else ()
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    names = [f"{kind}/{name}" for name in entries]
    tree = ["```{toctree}", ":hidden:", "", *names, "```"]
    head = [f"| name | | {' | '.join(columns)} |".replace("|  |", "|")]
    head += [f"|{'---|' * (2 + len(columns))}"]
    _write(folder / f"{kind}.md", [f"# {title}", "", *head, *rows, "", *tree])
    for name in entries:
        shown = showing(name)
        equations = ["```{math}", showing(name, latex=True), "```"]
        lines = [f"# {name}", "", f"{summary(find(name))}.", "", *equations, ""]
        lines += [f"`flowopt show {name}` prints:", "", "```text", shown, "```"]
        _write(folder / kind / f"{name}.md", lines)


def _schemes() -> list[str]:
    flow = registry.FLOWS["gradient_flow"].build()
    lines = [
        "# Schemes",
        "",
        "| in the registry | | order | gradients per step |",
        "|---|---|---|---|",
    ]
    classes = [fo.Splitting]
    for name, build in registry.SCHEMES.items():
        scheme = build()
        order, count = scheme.order(flow), scheme.gradient_evaluations(flow)
        lines.append(f"| {name} | `{scheme!r}` | {order:g} | {count} |")
        classes.append(type(scheme))
    lines += ["", "Order and gradients per step for the gradient flow.", ""]
    for cls in dict.fromkeys(classes):
        lines += _automatic("autoclass", cls)
    return lines


def _documented(title: str, entries: Iterable[str], find: Callable[[str], type]) -> list[str]:
    lines = [f"# {title}", ""]
    for cls in dict.fromkeys(find(name) for name in entries):
        lines += _automatic("autoclass", cls)
    return lines


def _problems() -> list[str]:
    lines = [
        "# Problems",
        "",
        "Every isolated critical point of the landscapes in the registry.",
        "",
    ]
    for name, build in registry.PROBLEMS.items():
        problem = build()
        about = problem.summary or summary(getattr(fo.problems, name, None))
        lines += [f"## {name}", "", f"{about}.", ""]
        if problem.critical_points:
            lines += [
                "| position | loss | kind | eigenvalues of the Hessian |",
                "|---|--:|---|---|",
            ]
        for point in problem.critical_points:
            position, eigenvalues = _numbers(point.position), _numbers(point.eigenvalues)
            lines.append(f"| ({position}) | {point.value:.6g} | {point.kind} | {eigenvalues} |")
        lines.append("")
    return lines


def _api() -> list[str]:
    """Every public name with its docstring, package by package."""
    lines = ["# Public names", ""]
    for name in fo.__all__:
        thing = getattr(fo, name)
        if inspect.isfunction(thing):
            lines += _automatic("autofunction", thing, f"flowopt.{name}")
        elif inspect.isclass(thing):
            lines += _automatic("autoclass", thing, f"flowopt.{name}")
    return lines


def _automatic(directive: str, thing: type | Callable, name: str | None = None) -> list[str]:
    """What Sphinx reads from a docstring, in a page in Markdown."""
    path = name or f"{thing.__module__}.{thing.__qualname__}"
    options = [":no-index:"] if name is None else []
    return ["```{eval-rst}", f".. {directive}:: {path}", *(f"   {o}" for o in options), "```", ""]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
