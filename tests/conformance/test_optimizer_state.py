"""What an optimizer keeps survives files, copies and later steps."""

import copy
import io
import pickle

import pytest
import torch

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.optimizers import PRESETS, assert_identical, langevin, langevin_optimizer
from tests.reference.training import (
    closure_of,
    flat_parameters,
    small_data,
    small_network,
    train,
)


def through_state_dict(optimizer, module):
    fresh = rebuilt(optimizer, module)
    fresh.load_state_dict(optimizer.state_dict())
    return fresh


def through_file(optimizer, module):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = rebuilt(optimizer, module)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def rebuilt(optimizer, module):
    """A new optimizer of the same kind, as a program that starts again makes it."""
    if isinstance(optimizer, fo.optim.presets.Preset):
        settings = dict(PRESETS)[type(optimizer)]
        return type(optimizer)(module.parameters(), **settings)
    return langevin_optimizer(module)


KINDS = [
    *(pytest.param(lambda m, p=p, s=s: p(m.parameters(), **s), id=p.__name__) for p, s in PRESETS),
    pytest.param(langevin_optimizer, id="langevin with noise"),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("passage", [through_state_dict, through_file])
def test_a_restored_optimizer_continues_identically(make, passage):
    whole = small_network()
    expected = train(whole, make(whole), steps=20)
    module = small_network()
    optimizer = make(module)
    train(module, optimizer, steps=11)
    resumed = small_network()
    resumed.load_state_dict(module.state_dict())
    assert_identical(train(resumed, passage(optimizer, resumed), steps=9, first=11), expected)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_continues_identically(make, duplicate):
    whole = small_network()
    expected = train(whole, make(whole), steps=20)
    module = small_network()
    optimizer = make(module)
    train(module, optimizer, steps=11)
    # Parameters and optimizer travel together, as in a checkpoint of both.
    copied_module, copied_optimizer = duplicate((module, optimizer))
    assert_identical(train(copied_module, copied_optimizer, steps=9, first=11), expected)


def test_noise_continues_where_it_was_with_a_word_that_keeps_a_gradient():
    inputs, targets = small_data()

    def run(module, optimizer, steps):
        for _ in range(steps):
            optimizer.step(closure_of(module, optimizer, inputs, targets))
        return flat_parameters(module)

    def make(module):
        return FlowOptimizer(module.parameters(), langevin(), fo.Splitting("BAOAB"), lr=0.2, seed=7)

    whole = small_network()
    expected = run(whole, make(whole), 10)
    module = small_network()
    optimizer = make(module)
    run(module, optimizer, 6)
    resumed = small_network()
    resumed.load_state_dict(module.state_dict())
    again = make(resumed)
    again.load_state_dict(optimizer.state_dict())
    assert_identical(run(resumed, again, 4), expected)


def test_the_state_of_a_parameter_holds_tensors_of_its_shape_and_its_own_steps():
    module = small_network()
    optimizer = fo.optim.Adam(module.parameters())
    train(module, optimizer, steps=2)
    for parameter, kept in optimizer.state.items():
        assert kept.keys() == {"m", "v", "clock"}
        assert kept["m"].shape == kept["v"].shape == parameter.shape
        assert kept["clock"]["step"] == 2


def test_without_a_seed_the_noise_is_that_of_torch():
    ends = []
    for seed in (None, 1234):
        torch.manual_seed(1234)
        module = small_network()
        torch.manual_seed(1234)
        ends.append(train(module, langevin_optimizer(module, seed), steps=3))
    assert_identical(*ends)


def test_a_restored_optimizer_has_the_seed_of_the_one_that_was_saved():
    def optimizer(module, seed):
        torch.manual_seed(seed)
        return langevin_optimizer(module, seed=None)

    module = small_network()
    saved = optimizer(module, 11)
    train(module, saved, steps=3)
    resumed = small_network()
    again = optimizer(resumed, 22)
    resumed.load_state_dict(module.state_dict())
    again.load_state_dict(saved.state_dict())
    assert_identical(
        train(resumed, again, steps=3, first=3), train(module, saved, steps=3, first=3)
    )
