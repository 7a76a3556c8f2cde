"""Shapes, stops, records, sweeps, threads and chunks of kernel runs."""

from dataclasses import replace

import pytest
import torch

import flowopt as fo
from flowopt.core.noise import seeded_noise
from flowopt.kernels import batch, engine
from tests.kernels import losses
from tests.kernels.machinery import assert_equal, by_kernel

PROBLEM = losses.Plain(losses.neuron)
LANGEVIN = fo.flows.langevin(friction=1.0, temperature=0.1)


def _start(*batch):
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.rand(*batch, 2, generator=generator, dtype=torch.float64) - 1.5


def _both(flow, word, start, **arguments):
    return [
        fo.integrate(flow, fo.Splitting(word), PROBLEM, start, compile=compile, **arguments)
        for compile in (True, False)
    ]


def _assert_same(ours, theirs, digits=0.0):
    assert ours.engine == "native kernel"
    assert_equal(ours.status, theirs.status)
    assert_equal(ours.steps, theirs.steps)
    for name, counts in theirs.counts.items():
        assert_equal(ours.counts[name], counts)
    pairs = [(ours.position, theirs.position), (ours.state.time, theirs.state.time)]
    pairs += [(ours.records[n], theirs.records[n]) for n in theirs.records]
    pairs += [(ours.times[n], theirs.times[n]) for n in theirs.times]
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=digits, atol=digits, equal_nan=True)


@pytest.mark.parametrize("batch", [(), (1,), (7,), (8,), (33,), (100,), (3, 5), (2, 3, 4)], ids=str)
def test_any_batch_shape_gives_what_eager_torch_gives(batch):
    _assert_same(*_both(fo.flows.gradient_flow(), "A", _start(*batch), step_size=0.05, steps=30))


def test_diverging_trajectories_keep_their_last_finite_state():
    ours, theirs = _both(fo.flows.gradient_flow(), "A", _start(200), step_size=0.3, steps=60)
    assert (ours.status == fo.Status.DIVERGED).any()
    assert (ours.status != fo.Status.DIVERGED).any()
    _assert_same(ours, theirs)


@pytest.mark.parametrize("stop", [fo.stop.gradient(1e-2), fo.stop.rest(1e-2)])
def test_trajectories_stop_one_by_one(stop):
    ours, theirs = _both(
        fo.flows.heavy_ball(friction=1.0), "OBA", _start(300), step_size=0.1, steps=400, stop=stop
    )
    assert len(ours.steps.unique()) > 10
    _assert_same(ours, theirs, 1e-12)


def test_a_condition_of_the_user_ends_trajectories():
    def low(state, evaluation):
        return evaluation.loss < 0.01

    ours, theirs = _both(
        fo.flows.gradient_flow(), "A", _start(50), step_size=0.05, steps=100, stop=low
    )
    assert (ours.status == fo.Status.STOPPED).any()
    _assert_same(ours, theirs)


@pytest.mark.parametrize("control", [fo.ExpectedSlope(), fo.Schedule(lambda number: 0.1)], ids=repr)
@pytest.mark.parametrize("number", [0.0, torch.nan])
def test_trajectories_that_have_ended_at_the_start_stay_there(control, number):
    start = torch.full((3, 2), number, dtype=torch.float64)
    problem, flow = fo.problems.quadratic([1.0, 4.0]), fo.flows.heavy_ball(friction=1.0)
    arguments = {"control": control, "steps": 20, "stop": fo.stop.gradient(1e-3)}
    ours, theirs = (
        fo.integrate(flow, fo.Splitting("OBA"), problem, start, compile=c, **arguments)
        for c in (True, False)
    )
    assert ours.engine == "native kernel"
    _assert_same(ours, theirs)


def test_the_last_step_is_shortened_to_end_in_time():
    flow = fo.flows.gradient_flow()
    ours, theirs = _both(flow, "A", _start(20), step_size=0.03, duration=1.0)
    assert (ours.status == fo.Status.TIME_REACHED).all()
    assert_equal(ours.state.time, torch.ones(20, dtype=torch.float64))
    _assert_same(ours, theirs)


def test_step_sizes_and_hyperparameters_per_trajectory():
    sizes = torch.linspace(0.01, 0.2, 40, dtype=torch.float64)
    flow = fo.flows.heavy_ball(friction=torch.linspace(0.1, 3.0, 40, dtype=torch.float64))
    _assert_same(*_both(flow, "OBA", _start(40), step_size=sizes, steps=50), 1e-12)


def test_durations_per_trajectory():
    spans = torch.linspace(0.1, 2.0, 40, dtype=torch.float64)
    flow = fo.flows.gradient_flow()
    _assert_same(*_both(flow, "A", _start(40), step_size=0.03, duration=spans))


def test_a_continued_run_is_the_run_without_a_break():
    def run(start, steps, compile=True):
        return fo.integrate(
            LANGEVIN,
            fo.Splitting("BAOAB"),
            PROBLEM,
            start,
            step_size=0.1,
            steps=steps,
            compile=compile,
        )

    whole = run(_start(30), 60)
    parts = run(run(_start(30), 25).state, 35)
    assert_equal(parts.position, whole.position)
    assert_equal(parts.state.step, whole.state.step)


@pytest.mark.parametrize("first", [True, False])
def test_a_continued_run_keeps_its_engine_unless_told_otherwise(first, tmp_path):
    flow = fo.flows.gradient_flow()

    def run(start, compile="auto", steps=10):
        settings = {"step_size": 0.01, "steps": steps, "compile": compile}
        return fo.integrate(flow, fo.Euler(), PROBLEM, start, **settings)

    before = run(_start(20), compile=first)
    torch.save(before.state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    # By the rule for a new run, the first would be eager and the second a kernel.
    steps = 10 if first else 10_000
    for state in (before.state, run(before.state).state, loaded):
        assert run(state, steps=steps).engine.startswith("native" if first else "eager")
        assert run(state, compile=not first).engine.startswith("eager" if first else "native")
    assert before.state == replace(before.state, native=None)


@pytest.mark.parametrize("control", [None, fo.Schedule(lambda step: 0.1 / (1 + 0.01 * step))])
def test_records_are_those_of_eager_torch(control):
    arguments = {"step_size": 0.1} if control is None else {"control": control}
    ours, theirs = _both(
        fo.flows.heavy_ball(friction=1.0),
        "BAOAB",
        _start(20),
        steps=100,
        stop=fo.stop.rest(0.03),
        record={"position": 30, "loss": 7, "energy": 10, "step_size": 7},
        **arguments,
    )
    assert len(ours.records["loss"]) == 15
    _assert_same(ours, theirs, 1e-12)


def test_the_start_is_left_alone():
    start = _start(50)
    before = start.clone()
    first = fo.integrate(
        LANGEVIN, fo.Splitting("OBA"), PROBLEM, start, step_size=0.1, steps=5, compile=True
    )
    copies = [leaf.clone() for leaf in first.state.position]
    fo.integrate(
        LANGEVIN, fo.Splitting("OBA"), PROBLEM, first.state, step_size=0.1, steps=5, compile=True
    )
    assert_equal(start, before)
    assert_equal(torch.stack(copies), torch.stack(first.state.position))


@pytest.mark.parametrize("name", ["threads", "chunks"])
def test_results_depend_on_neither_threads_nor_chunks(name, monkeypatch):
    def run():
        return fo.integrate(
            LANGEVIN,
            fo.Splitting("BAOAB"),
            PROBLEM,
            _start(1000),
            step_size=0.1,
            steps=100,
            stop=fo.stop.rest(0.05),
            compile=True,
        )

    before, threads = run(), torch.get_num_threads()
    if name == "chunks":
        monkeypatch.setattr(engine, "FIRST_TRIALS", 7)
        monkeypatch.setattr(engine, "MOST_TRIALS", 9)
    try:
        torch.set_num_threads(1 if threads > 1 and name == "threads" else 3)
        after = run()
    finally:
        torch.set_num_threads(threads)
    assert_equal(after.position, before.position)
    assert_equal(after.status, before.status)
    assert_equal(after.counts["gradients"], before.counts["gradients"])


def test_parameters_beyond_sixteen_lie_in_one_leaf():
    class Many:
        dim = 20

        def loss(self, theta):
            return (theta**2 * torch.arange(1, 21)).sum(-1) + theta[..., 3] * theta[..., 5]

    start = torch.linspace(-1, 1, 11 * 20, dtype=torch.float64).reshape(11, 20)
    flow = fo.flows.heavy_ball(friction=1.0)
    ours, theirs = (
        fo.integrate(
            flow, fo.Splitting("BAOAB"), Many(), start, step_size=0.02, steps=20, compile=c
        )
        for c in (True, False)
    )
    torch.testing.assert_close(ours.position, theirs.position, rtol=1e-12, atol=1e-14)


def test_a_loss_of_single_points_runs_under_vmap():
    problem = losses.Plain(lambda theta: theta[0] ** 2 + torch.dot(theta, theta) ** 2)
    flow = fo.flows.gradient_flow()
    ours, theirs = (
        fo.integrate(flow, fo.Euler(), problem, _start(9), step_size=0.1, steps=10, compile=c)
        for c in (True, False)
    )
    assert ours.engine == "native kernel"
    torch.testing.assert_close(ours.position, theirs.position, rtol=1e-13, atol=1e-15)


def test_seeds_give_the_numbers_of_eager_torch():
    ours, theirs = _both(LANGEVIN, "BAOAB", _start(64), step_size=0.1, steps=40, seed=12345)
    _assert_same(ours, theirs, 1e-12)
    again, _ = _both(LANGEVIN, "BAOAB", _start(64), step_size=0.1, steps=40, seed=12346)
    assert (again.position != ours.position).all()


def test_an_interrupted_run_returns_what_there_is():
    def interrupt(state, evaluation):
        if int(state.step.max()) >= 20:
            raise KeyboardInterrupt
        return evaluation.loss

    solution = fo.integrate(
        fo.flows.gradient_flow(),
        fo.Euler(),
        PROBLEM,
        _start(10),
        step_size=0.01,
        steps=100,
        record={interrupt: 10},
        compile=True,
    )
    assert (solution.status == fo.Status.INTERRUPTED).all()
    assert (solution.steps == 20).all()


def test_progress_is_told_of_every_step():
    told = []
    fo.integrate(
        fo.flows.gradient_flow(),
        fo.Euler(),
        PROBLEM,
        _start(10),
        step_size=0.01,
        steps=100,
        record={"loss": 30},
        progress=told.append,
        compile=True,
    )
    assert told == [30, 30, 30, 10]


def test_an_empty_batch_is_a_result():
    solution = fo.integrate(
        fo.flows.gradient_flow(), fo.Euler(), PROBLEM, _start(0), step_size=0.01, steps=3
    )
    assert solution.position.shape == (0, 2)


def test_normals_are_those_of_the_eager_generator():
    noise = seeded_noise(3, (5,), torch.device("cpu"))
    steps = torch.tensor([0, 1, 2**31, 2**40, 7])
    trajectories = torch.tensor([0, 5, 2**33, 1, 2])

    def normals(step, trajectory):
        return torch.ops.flowopt.normal(noise.seed, trajectory, step, 65, 2, 7)

    ours = by_kernel(normals, steps, trajectories)
    torch.testing.assert_close(ours, normals(steps, trajectories), rtol=1e-13, atol=1e-15)


def test_steps_by_error_are_those_of_eager_torch():
    ours, theirs = (
        fo.integrate(
            fo.flows.gradient_flow(),
            fo.RungeKutta("dopri5"),
            PROBLEM,
            _start(50),
            control=fo.control.ErrorControl(rtol=1e-6, atol=1e-8),
            duration=2.0,
            record={"position": 3, "step_size": 5},
            compile=compile,
        )
        for compile in (True, False)
    )
    assert ours.counts["rejected"].sum() > 0
    assert len(ours.steps.unique()) > 3
    # Estimates near zero are rounding; step sizes that follow them differ within the tolerance.
    _assert_same(ours, theirs, 1e-6)


def test_a_small_network_is_a_kernel_too():
    inputs = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    module = torch.nn.Sequential(
        torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()
    problem = fo.problems.network(
        module, torch.nn.functional.mse_loss, (inputs, torch.sin(3 * inputs))
    )
    generator = torch.Generator().manual_seed(0)
    start = {
        name: torch.randn(9, *w.shape, generator=generator, dtype=torch.float64)
        for name, w in module.named_parameters()
    }
    flow = fo.flows.heavy_ball(friction=1.0)
    ours, theirs = (
        fo.integrate(flow, fo.Splitting("OBA"), problem, start, step_size=0.05, steps=30, compile=c)
        for c in (True, False)
    )
    assert ours.engine == "native kernel"
    for name, weights in theirs.position.items():
        torch.testing.assert_close(ours.position[name], weights, rtol=1e-12, atol=1e-13)


def test_eager_torch_evaluates_a_few_of_the_starts():
    sizes = []

    def loss(theta):
        sizes.append(theta.reshape(-1, 2).shape[0])
        return losses.neuron(theta)

    problem = losses.Plain(loss)
    for _ in range(2):
        sizes.clear()
        flow = fo.flows.gradient_flow()
        fo.integrate(flow, fo.Euler(), problem, _start(200), step_size=0.1, steps=5, compile=True)
        assert max(sizes) <= batch.CHECKED_STARTS


def test_whether_a_trajectory_goes_on_needs_no_selection():
    # What it would keep if it ended decides nothing: the chain of a step is as short as can be.
    flow = fo.flows.gradient_flow()
    stop = fo.stop.gradient(1e-3)
    description = fo.describe_kernel(
        flow, fo.Splitting("A"), PROBLEM, _start(4), step_size=0.1, stop=stop
    )
    needed = description.loop.program.needed([description.loop.goes])
    assert all(description.loop.program.nodes[i].op != "select" for i in needed)


def test_a_start_where_the_gradient_is_nothing_but_rounding_fits():
    places = torch.linspace(-1, 1, 32, dtype=torch.float64)

    def loss(theta):
        error = theta[..., :1] + theta[..., 1:] * torch.tanh(places) ** 2 - torch.sin(3 * places)
        return (error**2).mean(-1)

    problem, start = losses.Plain(loss), torch.zeros(3, 2, dtype=torch.float64)
    flow = fo.flows.gradient_flow()
    solution = fo.integrate(flow, fo.Euler(), problem, start, step_size=0.1, steps=5, compile=True)
    assert solution.position.abs().max() < 1e-15
