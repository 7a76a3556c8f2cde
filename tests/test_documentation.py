"""The code in the documentation runs, page by page, from top to bottom."""

import re
import shlex
from pathlib import Path

import pytest

from studies.__main__ import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A file that a page tells the reader to write.
FILE = re.compile(r"in a file `([\w.]+)`:\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    for file, content in FILE.findall(text):
        (tmp_path / file).write_text(content, encoding="utf-8")
    namespace = {}
    for block in CODE.findall(text):
        exec(compile(block, str(page), "exec"), namespace)


def test_the_commands_of_the_first_steps_run_and_say_what_the_page_says(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "five_minutes.md").read_text(encoding="utf-8")
    ((file, content),) = FILE.findall(text)
    (tmp_path / file).write_text(content, encoding="utf-8")
    commands = [line for block in SHELL.findall(text) for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    (shown,) = [block for block in TEXT.findall(text) if block.startswith("Energies")]
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_to_files(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_guide_is_in_the_index():
    listed = set((ROOT / "docs" / "index.md").read_text(encoding="utf-8").split())
    guides = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert guides <= listed
