import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from studies.basins.author_networks import (
    TASKS,
    Ends,
    half_squared_error,
    training_data,
    training_rows,
)
from studies.basins.config import PRESETS
from studies.basins.figures import ensembles
from studies.basins.methods import method
from studies.basins.parts import networks

SMALL = replace(
    PRESETS["smoke"],
    networks=("squares",),
    network_methods=("gd@0.001", "momentum_em@0.1"),
    replicas=6,
    network_steps=10,
)


def _computed(config):
    found = {name: compute() for name, compute in networks.units(config).items()}
    return networks.joined(found, config)


def test_the_seed_of_a_run_is_that_of_its_minibatches_too(monkeypatch):
    seeds, moved = [], networks.moved

    def recorded(*given, seed, **settings):
        seeds.append(seed)
        return moved(*given, seed=seed, **settings)

    monkeypatch.setattr(networks, "moved", recorded)
    monkeypatch.setattr(networks, "TOGETHER", 4)
    _computed(replace(SMALL, network_methods=("gd@0.001",), network_batch=5, seed=7))
    # One for each unit, as for its weights.
    assert seeds == [7, 11]


def test_the_rows_trained_on_are_the_authors():
    """His files have these losses of networks that give the same output for every input."""
    _, targets = TASKS["squares"].data()
    trained = training_rows(100)
    tested = [row for row in range(100) if row not in trained]
    mean = targets[trained].mean(0)
    for rows, loss in ((trained, 0.135201), (tested, 0.123683)):
        found = half_squared_error(mean.expand(50, 2), targets[rows])
        assert found.item() == pytest.approx(loss, abs=5e-7)


@pytest.mark.parametrize("name", TASKS)
def test_half_of_the_rows_are_trained_on_each_once(name):
    rows = len(TASKS[name].data()[0])
    assert len(set(training_rows(rows))) == rows // 2 == len(training_data(TASKS[name])[0])


def test_the_wave_has_two_periods_and_the_spirals_are_each_others_mirror_image():
    inputs, targets = TASKS["square_wave"].data()
    up = (inputs.remainder(1.0) < 0.5).double()
    assert torch.equal(targets, 2.0 * up - 1.0)
    inputs, targets = TASKS["two_spirals"].data()
    assert torch.equal(inputs[:100], -inputs[100:]) and targets.sum() == 100
    distance = torch.linalg.vector_norm(inputs[:100], dim=-1)
    assert distance[[0, -1]].tolist() == pytest.approx([math.pi, 5 * math.pi])


@pytest.mark.parametrize("name", TASKS)
def test_every_task_starts_as_widely_as_its_author_says(name):
    task = TASKS[name]
    made = networks._problem(task, SMALL)
    start = networks._start(task, made, 300, 0)
    assert len(set(made.loss(start).tolist())) == 300
    for tensor in start.values():
        if task.half_width is None:
            wide = 0.0 if tensor.ndim == 2 else tensor.shape[-1] ** -0.5
        else:
            wide = task.half_width / math.sqrt(3.0)
            assert float(tensor.abs().max()) <= task.half_width
        # The standard error of a standard deviation is below 1/√(2 n); five of them.
        allowed = 5.0 * wide / math.sqrt(2 * tensor.numel())
        assert float(tensor.std()) == pytest.approx(wide, abs=allowed)


@pytest.mark.parametrize("name", TASKS)
def test_every_record_is_of_a_method_with_an_energy_and_sums_to_everything(name):
    for entrant, ends in TASKS[name].records.items():
        assert method(entrant).flow.energies
        assert sum(ends) == pytest.approx(100.0) and min(ends) >= 0.0


def test_networks_end_by_the_authors_rule():
    """A network without hidden layer has its loss, gradient and ends in closed form."""
    task = replace(TASKS["squares"], layers=(2, 2), activation=nn.Identity, half_width=1.0)
    problem = networks._problem(task, SMALL)
    start = networks._start(task, problem, 3, 0)
    flow = method("gd@0.5")
    solution = networks.moved(flow, problem, start, most_steps=2000, compile=False)
    labels = networks._ends(solution, problem, 1e-4)
    assert labels.tolist() == [ELSEWHERE] * 3
    rough = networks.moved(flow, problem, start, most_steps=1, compile=False)
    assert networks._ends(rough, problem, 1e-4).tolist() == [UNFINISHED] * 3
    wild = networks.moved(method("gd@1e9"), problem, start, most_steps=2, compile=False)
    assert networks._ends(wild, problem, 1e-4).tolist() == [LOST] * 3


def test_the_distance_to_a_record_is_measured_from_what_its_noise_leaves_open():
    ends = np.repeat([ELSEWHERE, LOST, UNFINISHED], [80, 0, 20])
    inside = Ends(converged=70.0, unfinished=10.0, noisy=20.0)
    assert networks.farthest(ends, inside, 100) == 0.0
    beyond = Ends(converged=70.0, unfinished=30.0)
    # 80 and 70 of a hundred each: 75 % pooled.
    expected = 0.1 / math.sqrt(0.75 * 0.25 * 2 / 100)
    assert abs(networks.farthest(ends, beyond, 100)) == pytest.approx(expected)


def test_the_weights_of_a_network_do_not_depend_on_how_many_there_are():
    task = TASKS["two_spirals"]
    made = networks._problem(task, SMALL)
    few, many = (networks._start(task, made, count, 7) for count in (3, 5))
    assert all(torch.equal(few[name], many[name][:3]) for name in few)


def test_groups_of_networks_are_drawn_apart_and_joined(monkeypatch):
    monkeypatch.setattr(networks, "TOGETHER", 4)
    config = replace(SMALL, network_methods=("gd@0.001",))
    assert len(networks.units(config)) == 2
    arrays = _computed(config)
    assert dict(arrays.sizes) == {"network_run": 1, "network": 6}
    losses = arrays.network_loss.values[0]
    assert len(set(losses)) == 6


def test_the_report_and_the_figure_have_a_row_for_every_ensemble():
    arrays = _computed(SMALL)
    text = networks.section(arrays, SMALL)
    assert "fewer converge" in text and "59.86" in text
    assert text.count("| gd@0.001") == text.count("| momentum_em@0.1") == 1
    labels = [label.get_text() for label in ensembles(arrays).axes[0].get_yticklabels()]
    assert labels == ["gd@0.001", "momentum_em@0.1"]


def test_methods_without_a_record_and_minibatches_are_not_compared():
    config = replace(SMALL, network_methods=("gd@0.5",), network_batch=5, network_shared=False)
    text = networks.section(_computed(config), config)
    assert "rows of its own" in text and "| gd@0.5" in text
    assert ensembles(_computed(config)).axes


def test_energy_control_keeps_every_loss_below_its_first_and_momentum_does_not():
    """The energy begins as the loss, for momentum begins as zero."""
    config = replace(SMALL, network_methods=("momentum@0.1", "momentum_em@0.1"), replicas=60)
    task = TASKS["squares"]
    problem = networks._problem(task, config)
    first = problem.loss(networks._start(task, problem, 60, config.seed)).numpy()
    plain, controlled = _computed(config).network_loss.values
    assert (controlled <= first).all()
    assert (plain > first).mean() > 0.8


def test_an_ensemble_has_no_more_networks_than_the_authors(monkeypatch):
    few = replace(TASKS["two_spirals"], networks=2)
    monkeypatch.setitem(networks.TASKS, "two_spirals", few)
    config = replace(SMALL, networks=("squares", "two_spirals"), network_methods=("gd@0.1",))
    arrays = _computed(config)
    sizes = [networks.ensemble(arrays, place).sizes["network"] for place in (0, 1)]
    assert sizes == [6, 2]
    assert arrays.network_end.dtype == np.int8
    assert "2 networks (author: 2)" in networks.section(arrays, config)
