"""Minibatches of ensembles of networks: those that eager torch draws, in loops over rows."""

from functools import partial

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.kernels import drawing, engine
from flowopt.kernels.native import build
from tests.kernels.machinery import assert_equal
from tests.kernels.networks import (
    DESCENT,
    METHODS,
    assert_same,
    both,
    small_network,
    starts,
)


@pytest.mark.parametrize(
    ("method", "replacement"),
    [("gradient descent", True), ("Langevin", False), ("four gradients a step", False)],
)
def test_minibatches_are_those_of_eager_torch(method, replacement, row_loops, monkeypatch):
    flow, scheme = METHODS[method]
    monkeypatch.setattr(engine, "FIRST_TRIALS", 9)
    problem = small_network()
    problem.minibatches = fo.problems.Minibatches(3, replacement=replacement)
    settings = {"step_size": 0.1, "seed": 5, "record": {"loss": 4}}
    ours, theirs = both(problem, flow, scheme, steps=50, **settings)
    assert row_loops
    torch.testing.assert_close(ours.records["loss"], theirs.records["loss"], rtol=1e-11, atol=0)
    assert_same(ours, theirs)
    ours, theirs = (
        fo.integrate(flow, scheme, problem, run.state, steps=20, compile=native, **settings)
        for run, native in ((ours, True), (theirs, False))
    )
    assert_same(ours, theirs, 1e-11)


def test_minibatches_up_to_a_time():
    problem = small_network()
    problem.minibatches = fo.problems.Minibatches(2)
    assert_same(*both(problem, DESCENT, fo.Euler(), step_size=0.03, duration=1.0))


def test_another_minibatch_size_builds_nothing(monkeypatch):
    problem = small_network()
    problem.minibatches = fo.problems.Minibatches(2)
    both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=3)
    monkeypatch.setattr(build, "compile_object", None)
    problem.minibatches = fo.problems.Minibatches(5)
    assert_same(*both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=20))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("method", "replicas", "replacement"),
    [("gradient descent", 3, False), ("Langevin", 101, False), ("four gradients a step", 64, True)],
)
def test_every_replica_sees_the_minibatches_that_eager_torch_draws_for_it(
    method, replicas, replacement, dtype, row_loops, monkeypatch
):
    flow, scheme = METHODS[method]
    problem = small_network(dtype=dtype)
    problem.minibatches = fo.problems.Minibatches(3, shared=False, replacement=replacement)
    # Seven steps are drawn at once.
    monkeypatch.setattr(drawing, "MOST_ROWS", 7 * 3 * replicas)
    settings = {"step_size": 0.1, "seed": 5, "record": {"loss": 4}, "steps": 25}
    ours, theirs = both(problem, flow, scheme, starts(problem, replicas), **settings)
    assert row_loops
    digits = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(ours.records["loss"], theirs.records["loss"], rtol=digits, atol=0)
    assert_same(ours, theirs, digits)
    assert len(ours.loss.unique()) == replicas


CONTROLS = {
    "error": (fo.RungeKutta("dopri5"), fo.control.ErrorControl(rtol=1e-3, atol=1e-3)),
    "energy": (fo.Euler(), fo.control.LyapunovControl(first_step=0.5)),
    "energy's rate": (fo.Euler(), fo.control.LyapunovControl(first_step=8.0, dissipation=0.9)),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("control", CONTROLS)
def test_trajectories_that_reject_see_the_minibatches_of_their_own_steps(
    control, shared, row_loops, monkeypatch
):
    monkeypatch.setattr(engine, "FIRST_TRIALS", 9)
    # Where replicas draw for themselves, seven steps are drawn at once.
    monkeypatch.setattr(drawing, "MOST_ROWS", 7 * 2 * 40)
    scheme, judge = CONTROLS[control]
    problem = small_network()
    problem.minibatches = fo.problems.Minibatches(2, shared=shared)
    start, settings = starts(problem, 40), {"control": judge, "steps": 30, "seed": 5}
    ours, theirs = both(problem, DESCENT, scheme, start, **settings)
    assert row_loops
    # At different steps, lanes see different rows.
    assert len(theirs.counts["rejected"].unique()) > 1
    for name, counts in theirs.counts.items():
        assert_equal(ours.counts[name], counts)
    assert_same(ours, theirs, 1e-9)
    ours, theirs = (
        fo.integrate(DESCENT, scheme, problem, run.state, compile=native, **settings)
        for run, native in ((ours, True), (theirs, False))
    )
    assert_same(ours, theirs, 1e-9)


def test_replicas_that_reject_and_draw_for_themselves_are_recorded_and_go_on_from_where_they_are(
    monkeypatch,
):
    monkeypatch.setattr(drawing, "MOST_ROWS", 3 * 2 * 12)
    problem = small_network()
    problem.minibatches = fo.problems.Minibatches(2, shared=False)
    settings = {"control": CONTROLS["error"][1], "seed": 5, "record": {"loss": 4}}
    run = partial(both, problem, DESCENT, CONTROLS["error"][0], **settings)
    ours, theirs = run(starts(problem, 12), duration=3.0)
    # After the same time, they are at different steps.
    assert len(theirs.steps.unique()) > 1
    both_records = ours.records["loss"], theirs.records["loss"]
    torch.testing.assert_close(*both_records, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert_same(ours, theirs, 1e-9)
    assert_same(*run(theirs.state, steps=20), 1e-9)


def test_classes_of_every_replicas_own_rows():
    module = nn.Linear(2, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(12, 2, generator=generator, dtype=torch.float64), torch.arange(12) % 3
    problem = fo.problems.network(
        module,
        nn.functional.cross_entropy,
        data,
        batch=fo.problems.Minibatches(4, shared=False),
    )
    assert_same(*both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=20))
