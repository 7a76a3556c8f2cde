"""The script of the page on several processes prints what the page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_documentation import FILE, ROOT, SHELL, TEXT


@pytest.mark.slow
def test_the_script_of_the_page_runs_in_two_processes(tmp_path):
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    ((file, content),) = FILE.findall(page)
    (tmp_path / file).write_text(content, encoding="utf-8")
    ((program, *arguments),) = [command.split() for command in SHELL.findall(page)]
    assert program == "torchrun"
    started = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    (said,) = [text for text in TEXT.findall(page) if text.startswith("friction")]
    assert said in started.stdout
    assert Path(tmp_path / "checkpoint" / ".metadata").exists()
