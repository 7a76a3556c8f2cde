"""Parameters divided among processes are stepped as if one process had all of them."""

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from tests.distributed.runs import OWN, SUMMING, given

WAYS = {"lists": {}, "loop": {"foreach": False}, "compiled": {"compile": True}}
# Processes in a row, each with some rows; in two copies of two parts; each with all.
LAYOUTS = {
    "two": (2, (2,), (Shard(0),)),
    "four": (4, (4,), (Shard(0),)),
    "copies": (4, (2, 2), (Replicate(), Shard(0))),
    "replicated": (2, (2,), (Replicate(),)),
    "columns": (2, (2,), (Shard(1),)),
}
OTHERS = {"Langevin", "wandering rate", "AdLaLa"}


def each(methods):
    """Methods in parts; those that stand for all of their kind in copies too."""
    cases = [
        (name, layout)
        for name in methods
        for layout in LAYOUTS
        if layout in ("two", "four") or name in OTHERS
    ]
    return pytest.mark.parametrize(("name", "layout"), cases)


def assert_same(found, expected, **tolerance):
    """Positions, states and numbers are equal."""
    assert [*found] == [*expected]
    for key in ("position", "state", "numbers"):
        torch.testing.assert_close(found[key], expected[key], equal_nan=True, **tolerance)
    assert found["clocks"] == expected["clocks"]


@each(OWN)
@pytest.mark.parametrize("way", WAYS)
def test_elements_move_to_the_last_bit_as_in_one_process(groups, name, way, layout):
    number, *division = LAYOUTS[layout]
    expected = given(name, WAYS[way], torch.float32, None, ())
    for found in groups[number].run(given, name, WAYS[way], torch.float32, *division):
        assert_same(found, expected, rtol=0, atol=0)


@each(SUMMING)
@pytest.mark.parametrize("way", WAYS)
def test_sums_over_elements_are_those_of_all_processes(groups, name, way, layout):
    number, *division = LAYOUTS[layout]
    expected = given(name, WAYS[way], torch.float64, None, ())
    answers = groups[number].run(given, name, WAYS[way], torch.float64, *division)
    assert_same(answers[0], expected, rtol=1e-12, atol=1e-14)
    for found in answers[1:]:
        assert_same(found, answers[0], rtol=0, atol=0)
