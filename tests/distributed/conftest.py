"""Groups of two and of four processes, started once."""

from collections.abc import Iterator

import pytest

from tests.distributed.processes import Processes


@pytest.fixture(scope="session")
def groups() -> Iterator[dict[int, Processes]]:
    """Number of processes → these."""
    found = {number: Processes(number) for number in (2, 4)}
    yield found
    for group in found.values():
        group.end()
