"""DDP and FSDP2: processes with some of the rows each train as one process with all of them."""

import pytest
import torch

from tests.distributed.test_shards import assert_same
from tests.distributed.training import CLOSED, FREE, alone, measured, replicated, sharded, trained

divided = pytest.mark.parametrize(
    ("number", "wrap"), [(2, replicated), (2, sharded), (4, sharded)], ids=["DDP", "two", "four"]
)


def check(groups, number, name, wrap, *options):
    expected = trained(name, alone, *options)
    first, *others = groups[number].run(trained, name, wrap, *options)
    assert_same(first, expected, rtol=1e-9, atol=1e-12)
    for other in others:
        assert_same(other, first, rtol=0, atol=0)


@divided
@pytest.mark.parametrize("name", FREE)
def test_a_training_loop_is_that_of_one_process(groups, number, name, wrap):
    check(groups, number, name, wrap, {})


@divided
@pytest.mark.parametrize("name", ["Adam", "Langevin", "AdLaLa"])
def test_a_compiled_training_loop_is_that_of_one_process(groups, number, name, wrap):
    check(groups, number, name, wrap, {"compile": True})


@divided
@pytest.mark.parametrize("name", CLOSED)
def test_steps_that_call_a_closure_are_those_of_one_process(groups, number, name, wrap):
    check(groups, number, name, wrap, {})


@divided
@pytest.mark.parametrize("name", ["Langevin", "AdLaLa"])
def test_energies_and_temperatures_are_those_of_one_process(groups, number, name, wrap):
    expected = measured(name, alone)
    assert "temperature" in expected[0]
    for found in groups[number].run(measured, name, wrap):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_loss_of_shards_is_the_mean_over_processes(groups):
    check(groups, 2, "EnergyAdam", sharded, {}, "loss")
