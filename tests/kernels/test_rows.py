"""Networks whose loss is a mean or a sum over rows of data: one row traced, all rows in a loop."""

import re
import sys

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.controls import ErrorControl
from flowopt.kernels import engine
from flowopt.kernels.native import build
from flowopt.kernels.native.machine import Machine, this_machine
from tests.kernels.machinery import assert_equal, by_kernel
from tests.kernels.networks import (
    DESCENT,
    METHODS,
    MODULES,
    REPLICAS,
    ROWS,
    assert_same,
    both,
    rows_of_data,
    small_network,
    starts,
)


@pytest.mark.parametrize("method", METHODS)
def test_a_loop_over_rows_is_eager_torch(method, row_loops):
    flow, scheme = METHODS[method]
    ours, theirs = both(small_network(), flow, scheme, step_size=0.1, steps=50)
    assert all("@rows(" in text for text in row_loops)
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", MODULES)
def test_modules_by_rows(name):
    adam = fo.classic.adam(lr=0.01)
    assert_same(*both(small_network(name), adam.flow, adam.scheme, step_size=0.01, steps=50))


def _summed(outputs, targets):
    return nn.functional.mse_loss(outputs, targets, reduction="sum")


@pytest.mark.parametrize(
    "loss", [_summed, nn.functional.binary_cross_entropy_with_logits, nn.functional.huber_loss]
)
def test_sums_and_means_over_rows(loss, row_loops):
    ours, theirs = both(small_network(loss=loss), DESCENT, fo.Euler(), step_size=0.05, steps=50)
    assert "@rows(" in row_loops[0]
    assert_same(ours, theirs)


@pytest.mark.parametrize("minibatches", [None, fo.problems.Minibatches(5)])
def test_classes_as_targets(minibatches, row_loops):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    inputs, _ = rows_of_data(20)
    data = inputs, torch.arange(20) % 3
    problem = fo.problems.network(module, nn.functional.cross_entropy, data, batch=minibatches)
    ours, theirs = both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=50)
    assert "@rows(" in row_loops[0]
    assert_same(ours, theirs)


def test_float32():
    problem = small_network(dtype=torch.float32)
    adam = fo.classic.adam(lr=0.01)
    assert_same(*both(problem, adam.flow, adam.scheme, step_size=0.01, steps=50), 1e-4)


def test_a_single_network():
    problem = small_network()
    assert_same(*both(problem, DESCENT, fo.Euler(), problem.start(), step_size=0.1, steps=20))


def test_error_control_accepts_the_same_steps():
    ours, theirs = both(
        small_network(),
        DESCENT,
        fo.RungeKutta("dopri5"),
        control=ErrorControl(rtol=1e-4, atol=1e-4),
        duration=20.0,
    )
    assert_equal(ours.counts["rejected"], theirs.counts["rejected"])
    # Step sizes follow estimates of errors that are near rounding at first.
    assert_same(ours, theirs, 1e-10)


def test_stops_records_and_settings_per_replica():
    problem = small_network()
    sizes = torch.linspace(0.05, 0.5, REPLICAS, dtype=torch.float64)
    limits = torch.linspace(0.5, 3.0, REPLICAS, dtype=torch.float64)
    ours, theirs = both(
        problem,
        fo.flows.heavy_ball(friction=limits),
        fo.Splitting("OBA"),
        step_size=sizes,
        steps=60,
        stop=fo.stop.gradient(0.03),
        record={"loss": 7, "p": 20},
    )
    assert (ours.status == fo.Status.GRADIENT_SMALL).any()
    assert (ours.status == fo.Status.STEPS_TAKEN).any()
    torch.testing.assert_close(
        ours.records["loss"], theirs.records["loss"], rtol=1e-12, atol=1e-14, equal_nan=True
    )
    assert_same(ours, theirs)


def test_a_replica_that_diverges_keeps_its_last_finite_state():
    def steep(outputs, targets):
        return (outputs**4 - targets).square().mean()

    problem = small_network("one number", steep)
    start = problem.start(REPLICAS)
    start["weight"] = start["weight"] * torch.linspace(0.1, 9.0, REPLICAS)[:, None, None]
    ours, theirs = both(problem, DESCENT, fo.Euler(), start, step_size=0.05, steps=40)
    assert (ours.status == fo.Status.DIVERGED).any()
    assert (ours.status == fo.Status.STEPS_TAKEN).any()
    for name, position in theirs.position.items():
        torch.testing.assert_close(ours.position[name], position, rtol=1e-10, atol=0)
    assert_equal(ours.status, theirs.status)


@pytest.mark.parametrize("what", ["threads", "chunks"])
def test_numbers_depend_on_neither_threads_nor_chunks(what, monkeypatch):
    problem, threads = small_network(), torch.get_num_threads()

    def run():
        flow, scheme = METHODS["Langevin"]
        return fo.integrate(
            flow, scheme, problem, starts(problem, 50), step_size=0.1, steps=40, compile=True
        )

    before = run()
    if what == "chunks":
        monkeypatch.setattr(engine, "FIRST_TRIALS", 7)
        monkeypatch.setattr(engine, "MOST_TRIALS", 9)
    try:
        torch.set_num_threads(1 if threads > 1 and what == "threads" else 3)
        after = run()
    finally:
        torch.set_num_threads(threads)
    for name in before.position:
        assert_equal(after.position[name], before.position[name])


@pytest.mark.parametrize("rows", [ROWS, 2 * ROWS])
def test_other_data_builds_nothing(rows, monkeypatch):
    first = small_network()
    fo.integrate(DESCENT, fo.Euler(), first, starts(first), step_size=0.1, steps=5, compile=True)
    monkeypatch.setattr(build, "compile_object", None)
    inputs, targets = rows_of_data(rows)
    other = small_network(data=(inputs + 1.0, targets))
    assert_same(*both(other, DESCENT, fo.Euler(), step_size=0.1, steps=20))


def test_data_replaced_between_calls_is_seen():
    problem = small_network()
    both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=3)
    problem.inputs = problem.inputs + 1.0
    assert_same(*both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=20))
    problem.targets.mul_(0.5)
    assert_same(*both(problem, DESCENT, fo.Euler(), step_size=0.1, steps=20))


@pytest.mark.parametrize("replicas", [3, 400])
def test_memory_that_the_system_does_not_give_is_an_error(replicas, monkeypatch):
    step = sys.modules["flowopt.kernels.step"]
    load, aligned = step.load, re.compile(r"@aligned_alloc\(i64 64, i64 \d+\)")
    greedy = f"@aligned_alloc(i64 64, i64 {1 << 62})"
    monkeypatch.setattr(step, "load", lambda text, *rest: load(aligned.sub(greedy, text), *rest))
    problem = small_network()
    start = starts(problem, replicas)
    before = {name: weights.clone() for name, weights in start.items()}
    with pytest.raises(MemoryError, match="every thread takes"):
        fo.integrate(DESCENT, fo.Euler(), problem, start, step_size=0.1, steps=500, compile=True)
    for name, weights in before.items():
        assert_equal(start[name], weights)


def _centred(outputs, targets):
    """Sees the mean over the rows."""
    return ((outputs - outputs.mean(0)) ** 2 - targets).square().mean()


def _late(outputs, targets):
    """A mean over the first three rows, and something else over more of them."""
    return (outputs - targets).square().mean() * (1.0 if len(outputs) <= 3 else 1.0 + len(outputs))


def _launched(problem):
    return fo.integrate(
        DESCENT, fo.Euler(), problem, starts(problem), step_size=0.1, steps=5, compile="auto"
    )


@pytest.mark.parametrize(("loss", "words"), [(_centred, "sum or mean"), (_late, "differs")])
def test_a_loss_that_joins_rows_otherwise_is_no_loop(loss, words, monkeypatch):
    integration = sys.modules["flowopt.integrate"]
    monkeypatch.setattr(integration, "WORTH_A_KERNEL", 1)
    data = tuple(table.repeat(60, 1) for table in rows_of_data())
    solution = _launched(small_network(loss=loss, data=data))
    assert solution.engine.startswith("eager torch")
    assert words in solution.engine


def test_batch_statistics_are_refused_in_words(monkeypatch):
    integration = sys.modules["flowopt.integrate"]
    monkeypatch.setattr(integration, "WORTH_A_KERNEL", 1)
    norm = nn.BatchNorm1d(3, dtype=torch.float64, track_running_stats=False)
    module = nn.Sequential(nn.Linear(2, 3).double(), norm, nn.Linear(3, 1).double())
    data = tuple(table.repeat(60, 1) for table in rows_of_data())
    solution = _launched(fo.problems.network(module, nn.functional.mse_loss, data))
    assert solution.engine.startswith("eager torch")
    assert "row by row" in solution.engine


def test_the_listing_shows_the_loop_over_rows():
    problem = small_network()
    adam = fo.classic.adam(lr=0.01)
    text = str(fo.describe_kernel(adam.flow, adam.scheme, problem, starts(problem), step_size=0.01))
    assert "theta_0[i]' = " in text
    assert "# rows: for every row of the data; the mean over rows" in text
    assert "tanh(" in text.partition("# rows")[2]
    assert "loss += " in text
    assert len(text.splitlines()) < 700


POINTS = torch.cat(
    [
        torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
        for scale in (1e-300, 1e-12, 0.1, 1.0, 5.0, 100.0)
    ]
)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_tanh_written_out_is_exact_to_four_units_in_the_last_place(width):
    machine = this_machine()
    if width > machine.width:
        pytest.skip("this processor has shorter vectors")
    narrow = Machine(machine.triple, machine.cpu, machine.features, width, frozenset())
    ours, theirs = by_kernel(torch.tanh, POINTS, machine=narrow), torch.tanh(POINTS)
    distance = (ours.view(torch.int64) - theirs.view(torch.int64)).abs()
    assert int(distance.max()) <= 4
    edges = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    found = by_kernel(torch.tanh, edges, machine=narrow)
    assert_equal(found, torch.tanh(edges))
    assert_equal(found.signbit()[:4], edges.signbit()[:4])
