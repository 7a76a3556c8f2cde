"""Whole trajectories: how they end, what is recorded, and that they can be taken apart."""

import math

import pytest
import torch

import flowopt as fo
from flowopt import Status
from tests.reference.states import HILLS, Loss, flat
from tests.reference.training import flat_position, small_problem

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
STARTS = torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.2, -1.1]], dtype=torch.float64)
LANGEVIN = fo.flows.langevin(friction=1.0, temperature=0.1)
BAOAB = fo.Splitting("BAOAB")


def run(flow=None, scheme=None, problem=QUADRATIC, start=START, **settings):
    step = {} if "control" in settings else {"step_size": 0.1}
    steps = {} if "duration" in settings else {"steps": 5}
    settings = {**step, **steps, **settings}
    return fo.integrate(
        flow or fo.flows.gradient_flow(), scheme or fo.Euler(), problem, start, **settings
    )


def statuses(solution):
    return [Status(code) for code in solution.status.flatten().tolist()]


def test_a_run_ends_after_its_steps():
    solution = run(steps=7)
    assert statuses(solution) == [Status.STEPS_TAKEN]
    assert solution.steps.item() == 7
    assert solution.counts["rejected"].item() == 0


def test_no_steps_change_nothing():
    solution = run(steps=0)
    assert torch.equal(solution.position, START)
    assert statuses(solution) == [Status.STEPS_TAKEN]
    assert solution.counts["gradients"].item() == 1


def test_a_step_size_of_zero_moves_nothing():
    solution = run(fo.flows.heavy_ball(), BAOAB, step_size=0.0)
    assert torch.equal(solution.position, START)
    assert statuses(solution) == [Status.STEPS_TAKEN]


@pytest.mark.parametrize(("duration", "steps"), [(0.35, 4), (0.3, 3), (0.1, 1), (0.05, 1)])
def test_a_duration_is_hit_exactly_by_a_shortened_last_step(duration, steps):
    solution = run(duration=duration, record={"position": 1})
    assert solution.state.time.item() == duration
    assert solution.steps.item() == steps
    assert statuses(solution) == [Status.TIME_REACHED]
    full, last = 0.1, duration - (steps - 1) * 0.1
    curvatures = torch.tensor([1.0, 4.0], dtype=torch.float64)
    expected = START * (1 - full * curvatures) ** (steps - 1) * (1 - last * curvatures)
    torch.testing.assert_close(solution.position, expected, rtol=1e-14, atol=0)


def test_rounding_leaves_no_sliver_of_a_last_step():
    # Ten times 0.1 is less than 1 in floating point.
    assert run(duration=1.0).steps.item() == 10


def test_every_trajectory_may_have_its_own_duration():
    durations = torch.tensor([0.25, 1.0, 0.1], dtype=torch.float64)
    solution = run(start=STARTS, duration=durations)
    assert torch.equal(solution.state.time, durations)
    assert solution.steps.tolist() == [3, 10, 1]


def test_the_earlier_of_steps_and_duration_ends_a_run():
    step_sizes = torch.tensor([0.1, 0.3, 0.5], dtype=torch.float64)
    solution = run(start=STARTS, step_size=step_sizes, steps=4, duration=1.0)
    assert statuses(solution) == [Status.STEPS_TAKEN, Status.TIME_REACHED, Status.TIME_REACHED]


def test_a_small_gradient_ends_a_trajectory():
    solution = run(start=STARTS, steps=1000, stop=fo.stop.gradient(1e-3))
    assert set(statuses(solution)) == {Status.GRADIENT_SMALL}
    norms = QUADRATIC.gradient(solution.position).norm(dim=-1)
    assert (norms <= 1e-3).all()
    # One step earlier it was larger.
    before = [
        run(start=start, steps=steps - 1).position
        for start, steps in zip(STARTS, solution.steps.tolist(), strict=True)
    ]
    assert (QUADRATIC.gradient(torch.stack(before)).norm(dim=-1) > 1e-3).all()


def test_a_start_at_rest_takes_no_step():
    solution = run(start=torch.zeros(2, dtype=torch.float64), stop=fo.stop.gradient(0.0))
    assert statuses(solution) == [Status.GRADIENT_SMALL]
    assert solution.steps.item() == 0


def test_rest_waits_for_the_momentum_too():
    settings = {"flow": fo.flows.heavy_ball(friction=0.3), "scheme": BAOAB, "steps": 5000}
    flying = run(**settings, stop=fo.stop.gradient(0.05))
    still = run(**settings, stop=fo.stop.rest(0.05))
    momentum = torch.stack(still.state.variables["p"])
    assert momentum.norm() <= 0.05
    assert QUADRATIC.gradient(still.position).norm() <= 0.05
    assert flying.steps < still.steps


def test_a_condition_of_the_users_own_ends_a_trajectory():
    solution = run(start=STARTS, steps=100, stop=lambda state, evaluation: evaluation.loss < 0.1)
    assert set(statuses(solution)) == {Status.STOPPED}
    assert (solution.loss < 0.1).all()


def test_a_trajectory_that_diverges_keeps_its_last_finite_state():
    steep = fo.problems.quadratic([1e60, 1.0])
    solution = run(problem=steep, steps=50, record={"loss": 1})
    assert statuses(solution) == [Status.DIVERGED]
    assert torch.isfinite(flat(solution.state)).all()
    assert torch.isfinite(solution.loss)
    assert 0 < solution.steps.item() < 50
    again = run(problem=steep, steps=int(solution.steps))
    assert torch.equal(solution.position, again.position)


def test_a_member_that_diverges_does_not_disturb_the_others():
    def loss(theta):
        return (theta**2).sum(-1) / 2 + torch.where(theta[..., 0] > 1.5, math.inf, 0.0)

    starts = torch.tensor([[1.0, 2.0], [2.0, 1.0], [-0.5, 0.3]], dtype=torch.float64)
    solution = run(problem=Loss(loss), start=starts)
    assert statuses(solution) == [Status.STEPS_TAKEN, Status.DIVERGED, Status.STEPS_TAKEN]
    assert torch.equal(solution.position[1], starts[1])
    for member in (0, 2):
        alone = run(problem=Loss(loss), start=starts[member])
        assert torch.equal(solution.position[member], alone.position)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_diverged_before_the_first_step(bad):
    starts = torch.stack([START, torch.tensor([bad, 1.0], dtype=torch.float64)])
    solution = run(start=starts)
    assert statuses(solution) == [Status.STEPS_TAKEN, Status.DIVERGED]
    assert solution.steps.tolist() == [5, 0]
    single = run(start=starts[1])
    assert statuses(single) == [Status.DIVERGED]
    assert single.steps.item() == 0


def test_a_loss_that_is_nan_at_the_start_is_diverged():
    solution = run(problem=Loss(lambda theta: (theta * math.nan).sum(-1)))
    assert statuses(solution) == [Status.DIVERGED]
    assert torch.equal(solution.position, START)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_an_empty_batch_is_done_at_once(shape):
    solution = run(LANGEVIN, BAOAB, start=torch.zeros(*shape, 2, dtype=torch.float64))
    assert solution.position.shape == (*shape, 2)
    assert solution.status.shape == shape


def test_the_summary_counts_how_trajectories_ended():
    starts = torch.stack([START, START * math.nan, START])
    assert run(start=starts).summary() == (
        "2 took the most steps allowed\n"
        "1 diverged: loss, gradient or step size is not finite, or the step has no solution"
    )


class Interrupting(Loss):
    """A problem that presses Ctrl-C in its n-th differentiated call."""

    def __init__(self, problem, call):
        super().__init__(problem.loss, problem.dim)
        self.left = call

    def loss(self, theta):
        self.left -= theta.requires_grad
        if self.left == 0 and theta.requires_grad:
            raise KeyboardInterrupt
        return super().loss(theta)


@pytest.mark.parametrize("call", [2, 5, 11])
@pytest.mark.parametrize("start", [START, STARTS], ids=["single", "batch"])
@pytest.mark.parametrize(
    ("flow", "word"), [(LANGEVIN, "BAOAB"), (LANGEVIN, "OBABO"), (fo.flows.adam(), "TMVA")]
)
def test_an_interrupted_run_continues_to_the_same_end(flow, word, start, call):
    settings = {"flow": flow, "scheme": fo.Splitting(word), "start": start, "step_size": 0.01}
    whole = run(**settings, steps=20)
    cut = run(**settings, steps=20, problem=Interrupting(QUADRATIC, call))
    assert set(statuses(cut)) == {Status.INTERRUPTED}
    done = int(cut.steps.max())
    assert done < 20
    rest = run(**{**settings, "start": cut.state}, steps=20 - done)
    assert torch.equal(flat(rest.state), flat(whole.state))
    assert torch.equal(rest.state.time, whole.state.time)


def test_a_stop_function_may_be_interrupted():
    asked = []

    def stop(state, evaluation):
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return evaluation.loss < 0

    solution = run(stop=stop, steps=20, record={"loss": 1})
    assert statuses(solution) == [Status.INTERRUPTED]
    assert solution.steps.item() == len(solution.records["loss"]) - 1


def test_members_that_had_ended_keep_their_status_when_interrupted():
    starts = torch.stack([START, START * math.nan])
    solution = run(start=starts, problem=Interrupting(QUADRATIC, 3), steps=20)
    assert statuses(solution) == [Status.INTERRUPTED, Status.DIVERGED]


def test_a_schedule_continues_where_it_was():
    control = fo.Schedule(lambda step: 0.1 / (1 + step))
    whole = run(control=control, steps=9)
    rest = run(control=control, steps=5, start=run(control=control, steps=4).state)
    assert torch.equal(whole.position, rest.position)


def test_a_longer_schedule_than_one_table_is_followed():
    solution = run(
        control=fo.Schedule(lambda step: 1e-3 * (1 + step)), steps=150, record={"step_size": 1}
    )
    expected = 1e-3 * (1 + torch.arange(150, dtype=torch.float64))
    assert torch.equal(solution.records["step_size"][:150], expected)


@pytest.mark.parametrize("word", ["BAOA", "OBA", "BAOAB", "OBABO"])
def test_a_network_with_minibatches_and_noise_continues_identically(word):
    problem = small_problem()
    settings = {"flow": LANGEVIN, "scheme": fo.Splitting(word), "problem": problem, "seed": 5}
    whole = run(**settings, start=problem.start(), steps=11)
    first = run(**settings, start=problem.start(), steps=4)
    rest = run(**settings, start=first.state, steps=7)
    assert torch.equal(flat_position(whole.position), flat_position(rest.position))


def test_a_start_is_not_written():
    start = START.clone()
    state = run(LANGEVIN, BAOAB, start=start).state
    before = flat(state).clone()
    run(LANGEVIN, BAOAB, start=state)
    assert torch.equal(start, START)
    assert torch.equal(flat(state), before)


def test_the_module_of_a_network_is_not_written():
    problem = small_problem()
    before = flat_position(problem.start())
    run(LANGEVIN, BAOAB, problem, problem.start())
    assert torch.equal(flat_position(problem.start()), before)


def test_runs_with_the_same_seed_agree_and_with_another_differ():
    one, same, other = (run(LANGEVIN, BAOAB, seed=seed).position for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_step_sizes_per_trajectory_are_separate_runs():
    step_sizes = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    together = run(fo.flows.heavy_ball(), BAOAB, start=STARTS, step_size=step_sizes)
    for member, step_size in enumerate(step_sizes.tolist()):
        alone = run(fo.flows.heavy_ball(), BAOAB, start=STARTS[member], step_size=step_size)
        assert torch.equal(together.position[member], alone.position)


def test_hyperparameters_per_trajectory_are_separate_runs():
    frictions = torch.tensor([0.0, 1.0, math.inf], dtype=torch.float64)
    together = run(fo.flows.heavy_ball(friction=frictions), BAOAB, start=STARTS)
    for member, friction in enumerate(frictions.tolist()):
        alone = run(fo.flows.heavy_ball(friction=friction), BAOAB, start=STARTS[member])
        assert torch.equal(together.position[member], alone.position)


def test_settings_of_a_method_may_differ_per_trajectory():
    lr = torch.tensor([0.01, 0.1], dtype=torch.float64)
    beta = torch.tensor([0.9, 0.5], dtype=torch.float64)
    together = fo.classic.sgd(lr=lr, momentum=beta)
    ends = run(together.flow, together.scheme, start=STARTS[:2], step_size=together.step_size)
    for member in range(2):
        method = fo.classic.sgd(lr=lr[member].item(), momentum=beta[member].item())
        alone = run(method.flow, method.scheme, start=STARTS[member], step_size=method.step_size)
        assert torch.equal(ends.position[member], alone.position)


@pytest.mark.parametrize("dim", [16, 17, 40])
def test_many_coordinates_move_as_few_do(dim):
    """Up to 16 coordinates are leaves of their own, more share one."""
    start = torch.linspace(-1, 1, 3 * dim, dtype=torch.float64).reshape(3, dim)
    curvatures = torch.linspace(1, 2, dim, dtype=torch.float64)
    solution = run(
        fo.flows.heavy_ball(friction=torch.tensor([0.5, 1.0, 2.0])),
        fo.Splitting("OBA"),
        fo.problems.quadratic(curvatures),
        start,
        record={"p": 1, "energy": 1},
    )
    theta, p = start, torch.zeros_like(start)
    decay = torch.exp(-0.1 * torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64))
    for _ in range(5):
        p = decay * p - 0.1 * curvatures * theta
        theta = theta + 0.1 * p
    torch.testing.assert_close(solution.position, theta, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(solution.records["p"][-1], p, rtol=1e-13, atol=1e-15)


def test_noise_of_many_coordinates_is_that_of_few():
    """Whether coordinates are separate leaves or one, element i has the same numbers."""
    ends = [
        run(
            fo.flows.langevin(friction=math.inf, temperature=1.0),
            fo.Splitting("BAO"),
            fo.problems.quadratic([0.0] * dim),
            torch.zeros(2, dim, dtype=torch.float64),
            steps=1,
        ).state.variables["p"]
        for dim in (16, 17)
    ]
    assert torch.equal(torch.stack(ends[0], -1), ends[1][0][:, :16])


def test_replicas_of_a_network_are_separate_networks():
    problem = small_problem()
    together = run(problem=problem, start=problem.start(3), steps=4)
    alone = run(problem=problem, start=problem.start(), steps=4)
    for name, value in alone.position.items():
        for replica in together.position[name]:
            torch.testing.assert_close(replica, value, rtol=0, atol=1e-14)


def test_hills_has_a_gradient_that_autograd_and_differences_agree_on():
    point = torch.tensor([0.4, -0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(HILLS.loss, point.requires_grad_())


def test_a_duration_is_enough_for_a_control_whose_steps_move_on_in_time():
    solution = run(control=fo.Constant(0.1), duration=0.35)
    assert statuses(solution) == [Status.TIME_REACHED]
    assert solution.steps.item() == 4
