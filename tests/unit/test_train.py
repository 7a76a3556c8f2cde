"""A network trained in one line: the same steps, and what is written down."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import flowopt as fo
from tests.reference.training import (
    flat_parameters,
    flat_position,
    small_data,
    small_network,
    train,
)

ADAM = fo.classic.adam(lr=0.01)
DATA = small_data()


def run(method=ADAM, module=None, **settings):
    settings = {"batch": 10, "steps": 12, **settings}
    return fo.train(module or small_network(), cross_entropy, DATA, method, **settings)


def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets).double().mean()


def test_a_module_is_trained_as_torch_trains_it():
    module, twin = small_network(), small_network()
    training = run(module=module)
    expected = train(twin, torch.optim.Adam(twin.parameters(), lr=0.01), steps=12)
    torch.testing.assert_close(flat_parameters(module), expected, rtol=0, atol=1e-12)
    assert torch.equal(flat_position(training.solution.position), flat_parameters(module))
    assert training.module is module
    assert training.status == fo.Status.STEPS_TAKEN


def test_any_flow_with_a_scheme_is_a_method():
    langevin = fo.flows.langevin(friction=1.0, temperature=1e-3)
    first, again, other = (
        run((langevin, fo.Splitting("BAOA"), 0.1), seed=seed).solution.position
        for seed in (3, 3, 4)
    )
    assert torch.equal(flat_position(first), flat_position(again))
    assert not torch.equal(flat_position(first), flat_position(other))


def test_the_history_has_the_loss_of_every_step_and_the_test_after_every_epoch():
    module = small_network()
    before = cross_entropy(module(DATA[0]), DATA[1]).item()
    test = (DATA[0][:7], DATA[1][:7])
    start = accuracy(module(test[0]), test[1])
    training = run(module=module, steps=None, epochs=3, test=test, metrics={"accuracy": accuracy})
    assert {name: len(rows) for name, rows in training.history.items()} == {
        "loss": 13,
        "test_loss": 4,
        "accuracy": 4,
    }
    assert training.history["accuracy"][0] == start
    assert training.history["accuracy"][-1] == accuracy(module(test[0]), test[1])
    expected = cross_entropy(module(test[0]), test[1])
    torch.testing.assert_close(training.history["test_loss"][-1], expected)
    assert cross_entropy(module(DATA[0]), DATA[1]) < before


def test_the_module_is_tested_in_evaluation_mode_and_left_as_it_was():
    module = nn.Sequential(small_network(), nn.Dropout(1.0))
    module.eval()
    module[1].train()
    seen = []
    training = fo.train(
        module,
        lambda outputs, targets: cross_entropy(outputs, targets) + 0 * outputs.sum(),
        DATA,
        ADAM,
        steps=1,
        test=DATA,
        metrics={"size": lambda outputs, targets: seen.append(outputs) or outputs.abs().sum()},
    )
    assert (training.history["size"] > 0).all()


def test_an_interrupted_training_keeps_what_there_is():
    module = small_network()

    def progress(steps):
        progress.done += steps
        if progress.done == 5:
            raise KeyboardInterrupt

    progress.done = 0
    training = run(module=module, progress=progress)
    assert training.status == fo.Status.INTERRUPTED
    assert training.solution.steps == 5
    assert torch.equal(flat_parameters(module), flat_parameters(run(steps=5).module))
    assert len(training.history["loss"]) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": None}, "give either epochs or steps"),
        ({"epochs": 2}, "give either epochs or steps"),
        ({"steps": -1}, "steps is a whole number that is not negative"),
        ({"steps": None, "epochs": 1.5}, "epochs is a whole number"),
        ({"metrics": {"accuracy": accuracy}}, "give test="),
        ({"test": DATA, "metrics": {"loss": accuracy}}, "has .'loss'. already"),
        ({"method": "adam"}, "method='adam': give one such as flowopt.classic.adam"),
        ({"test": DATA, "metrics": [accuracy]}, "give names and functions"),
        ({"test": DATA, "metrics": {"rows": lambda a, b: a[:, 0]}}, "gave numbers of shape"),
        (
            {"test": DATA, "metrics": {"none": lambda a, b: None}},
            "metric 'none' gave None, expected a number",
        ),
        ({"test": DATA, "metrics": {"one": 1}}, "metric 'one' is no function"),
    ],
)
def test_settings_of_no_use_are_refused(settings, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        run(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test": DATA[0]}, "data is a pair"),
        ({"test": (DATA[0], DATA[1][:3])}, "same number of rows"),
        ({"batch": True}, "at least one row, got size=True"),
    ],
)
def test_data_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(fo.DataError, match=message):
        run(**settings)
