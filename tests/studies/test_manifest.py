import json
import platform
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from studies.common.manifest import _commit, manifest
from studies.common.results import digest


@dataclass(frozen=True)
class Config:
    step_size: float = 0.1
    seeds: tuple[int, ...] = (0, 1)


@pytest.fixture(scope="module")
def record():
    return manifest(Config(), seconds=1.5, counts={"gradients": 300}, device="cpu")


def test_a_manifest_holds_the_configuration_and_its_digest(record):
    assert record["config"] == {"step_size": 0.1, "seeds": (0, 1)}
    assert record["digest"] == digest(Config())


def test_a_manifest_names_the_versions_that_ran(record):
    versions = record["versions"]
    assert versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__
    assert versions["python"] == platform.python_version()
    assert {"flowopt", "torchsde", "xarray"} <= versions.keys()


def test_a_manifest_says_where_it_ran_and_what_it_cost(record):
    assert (record["device"], record["threads"]) == ("cpu", torch.get_num_threads())
    assert record["device_name"]
    assert (record["seconds"], record["counts"]) == (1.5, {"gradients": 300})


def test_a_manifest_is_json(record):
    json.dumps(record, allow_nan=False)


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message", "first")
    git("tag", "--annotate", "v1", "--message", "a tag")
    return tmp_path, git("rev-parse", "HEAD")


def test_a_checkout_is_named_by_its_commit(checkout):
    folder, commit = checkout
    assert _commit(folder) == commit


def test_a_checkout_with_changes_is_called_dirty(checkout):
    folder, commit = checkout
    (folder / "file").write_text("two")
    assert _commit(folder) == f"{commit}-dirty"


def test_a_folder_inside_another_checkout_has_no_commit(checkout):
    folder, _ = checkout
    (folder / "inner").mkdir()
    assert _commit(folder / "inner") is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    folder, _ = checkout
    monkeypatch.setenv("PATH", "")
    assert _commit(folder) is None
