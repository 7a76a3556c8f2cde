"""Facts that must stand in two files of the repository agree."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements() -> list[str]:
    project = tomllib.loads(_read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    entries = [*project["dependencies"], *itertools.chain(*extras.values())]
    return [re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in entries]


def _pins() -> dict[str, str]:
    lines = [line for line in _read("constraints.txt").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_the_readme_has_one_command_with_nox_and_it_is_the_one_that_ci_runs():
    fenced = [line for block in FENCED.findall(_read("README.md")) for line in block.splitlines()]
    (command,) = [line for line in fenced if "nox" in line]
    assert command.endswith("nox -s tests")
    assert command in [line.strip() for line in _read(".ci/run").splitlines()]


@pytest.mark.parametrize("requirement", _requirements())
def test_every_requirement_has_an_exact_pin(requirement):
    assert re.fullmatch(r"[\w.]+", _pins()[_normal(requirement)])


def test_the_newest_section_of_the_changelog_is_this_version():
    version = tomllib.loads(_read("pyproject.toml"))["project"]["version"]
    assert re.search(r"^## \[([^\]]+)\]", _read("CHANGELOG.md"), re.MULTILINE)[1] == version
