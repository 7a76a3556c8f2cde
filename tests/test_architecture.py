"""Who may import whom, and how large a file, a function and a package may be."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Part of flowopt -> the parts it may import; every part may import itself and `errors`.
# A part is a package or module directly under flowopt/.
MAY_IMPORT = {
    "errors": set(),
    "core": set(),
    "symbolic": set(),
    "kernels": {"core"},
    "arguments": {"core"},
    "flows": {"symbolic", "core"},
    "schemes": {"core"},
    "controls": {"core", "arguments"},
    "problems": {"core", "arguments"},
    "diagnostics": {"core"},
    "adapters": {"core"},
    "stop": {"core", "arguments"},
    "stepper": {"core", "stop"},
    "records": {"core", "stepper"},
    "solution": {"core"},
    "plan": {"arguments", "core", "stepper", "stop"},
    "integrate": {
        "arguments",
        "plan",
        "solution",
        "stepper",
        "core",
        "kernels",
        "controls",
        "stop",
        "records",
    },
    "symbols": {"symbolic"},
    "classic": {"arguments", "flows", "schemes", "symbolic"},
    "runs": {"core", "classic", "diagnostics", "integrate", "problems", "solution"},
    "analysis": {"symbolic", "flows", "schemes", "core"},
}
MAY_IMPORT["optim"] = set(MAY_IMPORT)
MAY_IMPORT["registry"] = set(MAY_IMPORT)
# The face of the package: flowopt/__init__.py, which nothing inside imports.
MAY_IMPORT["flowopt"] = set(MAY_IMPORT) - {"registry"}

# Parts that see fewer of flowopt's dependencies than the others.
ONLY_EXTERNAL = {"errors": set(), "core": {"torch"}, "symbolic": {"sympy"}}
# "torch only in generated code": the file that prints it holds the namespace in which it runs.
PRINTS_TORCH_CODE = "flowopt/symbolic/printing/torch_code.py"
# Extras that may be imported inside a function: Solution.to_xarray, progress bars.
ONLY_INSIDE_FUNCTIONS = {"tqdm", "xarray"}
NEVER_IN_FLOWOPT = {"argparse", "matplotlib", "studies"}
# Submodules of flowopt that studies may import besides the names in flowopt/__init__.py.
OPEN_TO_STUDIES = {"errors", "registry"}
RUNS_A_FLOW = {"integrate", "train", "sample", "backward"}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
MOST_FILES_OF_A_PACKAGE = 11


@dataclass(frozen=True)
class Import:
    """A module that a file names: `from a import b` names both `a` and `a.b`, if that exists."""

    module: str
    line: int
    inside_function: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def _files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each_file(*packages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", _files(*packages), ids=_name)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_module(dotted: str) -> bool:
    place = ROOT.joinpath(*dotted.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def _modules(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
    inner = [f"{base}.{alias.name}" for alias in node.names]
    submodules = [module for module in inner if _is_module(module)]
    # `from flowopt import core` needs the right to core, not to all of flowopt.
    return submodules if len(submodules) == len(inner) else [base, *submodules]


def imports(tree: ast.Module, package: list[str]) -> list[Import]:
    """Every import of a file that lies in the given package, in functions too."""

    def walk(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for module in _modules(child, package):
                    yield Import(module, child.lineno, inside)
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from walk(child, inside or function)

    return list(walk(tree, False))


def _imports_of(path: Path) -> list[Import]:
    return imports(_tree(path), list(path.relative_to(ROOT).parent.parts))


def _part(module: str) -> str:
    """`flowopt.core.noise` -> `core`; flowopt itself, and its names, are `flowopt`."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "flowopt"


def _part_of(path: Path) -> str:
    return _part(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def _dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in project["dependencies"]}


def _public_names() -> set[str]:
    names: set[str] = set()
    for node in _tree(ROOT / "flowopt" / "__init__.py").body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@each_file("flowopt")
def test_a_part_of_flowopt_imports_only_the_parts_it_may(path):
    part = _part_of(path)
    allowed = MAY_IMPORT[part] | {part, "errors"}
    wrong = [
        f"line {entry.line}: {entry.module}"
        for entry in _imports_of(path)
        if entry.top == "flowopt" and _part(entry.module) not in allowed
    ]
    assert not wrong, f"{part} may import {sorted(allowed)}"


@each_file("flowopt")
def test_flowopt_imports_only_its_dependencies_and_the_core_torch_alone(path):
    own = ONLY_EXTERNAL.get(_part_of(path), _dependencies())
    own = own | ({"torch"} if _name(path) == PRINTS_TORCH_CODE else set())
    standard = sys.stdlib_module_names - NEVER_IN_FLOWOPT
    optional = ONLY_INSIDE_FUNCTIONS if _part_of(path) not in ONLY_EXTERNAL else set()
    wrong = [
        f"line {entry.line}: {entry.module}"
        for entry in _imports_of(path)
        if entry.top not in own | standard | {"flowopt"}
        and not (entry.inside_function and entry.top in optional)
    ]
    assert not wrong, f"this file may import {sorted(own)} and the standard library"


@each_file("flowopt")
def test_flowopt_never_prints(path):
    lines = [
        node.lineno
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert not lines


@each_file("studies")
def test_studies_use_only_what_flowopt_makes_public(path):
    allowed = {"flowopt", *OPEN_TO_STUDIES, *_public_names()}
    wrong = [
        f"line {entry.line}: {entry.module}"
        for entry in _imports_of(path)
        if entry.top == "flowopt" and (_part(entry.module) not in allowed)
    ]
    assert not wrong, "use flowopt's public names or its registry"


# The files directly under studies/ are the command line, which joins all of them.
@pytest.mark.parametrize(
    "path", [p for p in _files("studies") if p.parent != ROOT / "studies"], ids=_name
)
def test_a_study_imports_no_other_study(path):
    _, *inner, _ = path.relative_to(ROOT).parts
    wrong = [
        f"line {entry.line}: {entry.module}"
        for entry in _imports_of(path)
        if entry.top == "studies" and _part(entry.module) not in {inner[0], "common"}
    ]
    assert not wrong, f"may import studies.{inner[0]} and studies.common"


@pytest.mark.parametrize(
    "path", [path for path in _files("studies") if path.name == "run.py"], ids=_name
)
def test_a_run_draws_nothing(path):
    assert not [entry for entry in _imports_of(path) if entry.top == "matplotlib"]


@pytest.mark.parametrize(
    "path", [path for path in _files("studies") if path.name == "figures.py"], ids=_name
)
def test_figures_integrate_nothing(path):
    calls = (node.func for node in ast.walk(_tree(path)) if isinstance(node, ast.Call))
    names = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
    assert not names & RUNS_A_FLOW


@each_file("flowopt", "studies")
def test_a_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement on: a signature or docstring is not what makes code long."""
    first = node.body[ast.get_docstring(node) is not None :] or node.body
    return node.end_lineno - first[0].lineno + 1


@each_file("flowopt", "studies")
def test_a_function_is_short(path):
    long = {
        node.name: length
        for node in ast.walk(_tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := _length(node)) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long


@pytest.mark.parametrize(
    "package", sorted({path.parent for path in _files("flowopt", "studies")}), ids=_name
)
def test_a_package_has_few_files(package):
    assert len(list(package.glob("*.py"))) <= MOST_FILES_OF_A_PACKAGE


def test_every_part_of_flowopt_has_its_row():
    assert {_part_of(path) for path in _files("flowopt")} <= set(MAY_IMPORT)


def test_parts_do_not_import_each_other_in_a_circle():
    order: list[str] = []
    while remaining := [part for part in MAY_IMPORT if part not in order]:
        free = [part for part in remaining if MAY_IMPORT[part] - {part} <= set(order)]
        assert free, f"a circle among {remaining}"
        order += free


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import flowopt.core.noise", ["flowopt.core.noise"]),
        ("from flowopt.core.noise import Noise", ["flowopt.core.noise"]),
        ("from flowopt import core", ["flowopt.core"]),
        ("from flowopt import core, Anything", ["flowopt", "flowopt.core"]),
        ("from . import Anything", ["flowopt.schemes"]),
        ("from .euler import Euler", ["flowopt.schemes.euler"]),
        ("from ..core import noise as n", ["flowopt.core.noise"]),
        ("from .. import core", ["flowopt.core"]),
        ("def f():\n    import torch.nn", ["torch.nn"]),
    ],
)
def test_imports_are_found_in_every_form(code, modules):
    found = imports(ast.parse(code), ["flowopt", "schemes"])
    assert [entry.module for entry in found] == modules
