"""Kernels built in tests do not fill the user's cache."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWOPT_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture
def row_loops(monkeypatch):
    """The kernels that are printed, as text."""
    found = []
    load = sys.modules["flowopt.kernels.step"].load
    monkeypatch.setattr(
        sys.modules["flowopt.kernels.step"],
        "load",
        lambda text, *rest: found.append(text) or load(text, *rest),
    )
    return found
