"""Euler–Richardson: identities, the author's loop, and the results he recorded."""

import math

import pytest
import torch

import flowopt as fo
from tests.reference.euler_richardson import extragradient
from tests.reference.states import Loss

DESCENT = fo.flows.gradient_flow()
AUTHOR = fo.EulerRichardson("author")
POLY_TWO = fo.problems.analytic("poly_two")


def start(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 3


def to_rest(scheme, where, problem=POLY_TWO, **settings):
    control = fo.ElementaryControl(largest_growth=None, **settings)
    return fo.integrate(
        DESCENT, scheme, problem, where, control=control, steps=20_000, stop=fo.stop.gradient(1e-4)
    )


def test_the_textbook_step_is_two_half_euler_steps_doubled_less_a_full_one():
    flow, h = fo.flows.heavy_ball(friction=0.7), 0.05
    state = fo.integrate(flow, fo.Euler(), POLY_TWO, start(20), step_size=h, steps=3).state

    def end(scheme, step_size, steps):
        run = fo.integrate(flow, scheme, POLY_TWO, state, step_size=step_size, steps=steps)
        return torch.cat([run.position, *(p[:, None] for p in run.state.variables["p"])], -1)

    twice = 2 * end(fo.Euler(), h / 2, 2) - end(fo.Euler(), h, 1)
    torch.testing.assert_close(end(fo.EulerRichardson(), h, 1), twice, rtol=1e-13, atol=1e-13)
    midpoint = end(fo.RungeKutta("midpoint"), h, 1)
    assert torch.equal(end(fo.EulerRichardson(), h, 1), midpoint)


def test_a_step_is_accepted_up_to_the_difference_of_the_two_euler_solutions():
    # L = κθ²/2: two half steps and a full one differ by (h/2)·κ·(h/2)·κ·θ.
    curvature, h, theta = 3.0, 0.2, 1.5
    difference = (h * curvature) ** 2 * theta / 4
    problem, where = fo.problems.quadratic([curvature]), torch.tensor([theta], dtype=torch.float64)
    for tolerance, rejected in ((difference * (1 + 1e-9), 0), (difference * (1 - 1e-9), 1)):
        control = fo.ElementaryControl(tolerance=tolerance, first_step=h)
        run = fo.integrate(DESCENT, fo.EulerRichardson(), problem, where, control=control, steps=1)
        assert run.counts["rejected"].item() == rejected


def test_the_authors_form_is_the_published_loop():
    where = start(4, seed=1)
    found = to_rest(AUTHOR, where)
    for member, theta in enumerate(where):
        end, trials = extragradient(
            POLY_TWO, theta, tolerance=0.01, first=0.1, stop=1e-4, most=2000
        )
        assert int(found.steps[member] + found.counts["rejected"][member]) == trials
        torch.testing.assert_close(found.position[member], end, rtol=1e-8, atol=1e-8)


# Share of 10 000 starts in [−3, 3]² that end at each minimum, and trials to (−2, 1) and (0, −1), of
# Bensaid's records; his count leaves out the last trial, at which a run ends.
RECORDED = {(-2, 1): 0.2138, (2, -1): 0.2087, (0, -1): 0.2927, (0, 1): 0.2848}
RECORDED_TRIALS = {(-2, 1): 79, (0, -1): 87}


def test_ten_thousand_starts_end_where_the_authors_do_after_as_many_trials():
    found = to_rest(AUTHOR, start(10_000))
    assert (found.status == fo.Status.GRADIENT_SMALL).all()
    trials = (found.steps + found.counts["rejected"]).double() - 1
    for minimum, share in RECORDED.items():
        where = torch.tensor(minimum, dtype=torch.float64)
        near = (found.position - where).norm(dim=-1) < 0.05
        error = math.sqrt(2 * share * (1 - share) / 10_000)
        assert abs(near.double().mean().item() - share) < 5 * error
        if minimum in RECORDED_TRIALS:
            error = trials[near].std() * math.sqrt(2 / near.sum())
            assert abs(trials[near].mean() - RECORDED_TRIALS[minimum]) < 0.5 + 5 * error


@pytest.mark.parametrize(("variant", "reach"), [("textbook", 2.0), ("author", 1.0)])
def test_steps_settle_at_a_distance_from_which_the_probe_reaches_the_minimum(variant, reach):
    # On κθ²/2 the error is (hκ)²sθ/2, s the probe's share of the step; 0.9²·tolerance at rest, with
    # the probe (1 − s·hκ)·θ at the minimum.
    problem, share = fo.problems.quadratic([2.0]), 1 / reach
    control = fo.ElementaryControl(tolerance=0.01)
    where = torch.tensor([1.3], dtype=torch.float64)
    scheme = fo.EulerRichardson(variant)
    run = fo.integrate(DESCENT, scheme, problem, where, control=control, steps=400)
    distance = 2 * 0.81 * 0.01 / (reach**2 * share)
    assert math.isclose(run.position.item(), distance, rel_tol=0.05)
    ended = to_rest(scheme, where, problem)
    assert ended.status == fo.Status.GRADIENT_SMALL
    assert abs(ended.position.item()) <= 1e-4 / 2


@pytest.mark.parametrize("native", [True, False])
def test_an_error_that_is_no_number_asks_for_a_shorter_step(native):
    # The embedded solution leaves v > 0, where the equations hold, though the step itself does not.
    problem = fo.problems.rosenbrock()
    start = torch.tensor([[-0.0185, 0.4175]], dtype=torch.float64)
    flow, scheme = fo.flows.rmsprop(eps=0.5), fo.RungeKutta("dopri5")
    control = fo.control.ElementaryControl(tolerance=1e-3, first_step=1e-3)
    trials = []

    def watch(new):
        trials.append(new)
        if sum(trials) > 500:
            raise KeyboardInterrupt

    solution = fo.integrate(
        flow, scheme, problem, start, control=control, steps=50, compile=native, progress=watch
    )
    assert solution.status == fo.Status.STEPS_TAKEN
    assert 0 < solution.counts["rejected"] < 100


def test_without_any_error_the_step_grows_by_the_largest_factor():
    slope = Loss(lambda theta: theta.sum(-1), 2)
    control = fo.ElementaryControl(first_step=0.1, largest_growth=5.0)
    where = torch.zeros(2, dtype=torch.float64)
    run = fo.integrate(DESCENT, AUTHOR, slope, where, control=control, steps=4)
    assert math.isclose(run.state.time.item(), 0.1 * (1 + 5 + 25 + 125), rel_tol=1e-14)


@pytest.mark.parametrize("native", [True, False])
def test_without_a_guard_an_error_of_zero_or_none_ends_a_trajectory_as_diverged(native):
    def run(problem, where, growth):
        where = torch.tensor(where, dtype=torch.float64)
        control = fo.ElementaryControl(first_step=0.1, largest_growth=growth)
        return fo.integrate(
            DESCENT, AUTHOR, problem, where, control=control, steps=4, compile=native
        )

    slope = Loss(lambda theta: theta.sum(-1), 2)
    # Its probe, θ − 0.05/√θ, is below 0.
    root = Loss(lambda theta: torch.sqrt(theta).sum(-1), 1)
    for problem, where in ((slope, [[1.0, 2.0]]), (root, [[0.1]])):
        ended, guarded = (run(problem, where, growth) for growth in (None, 5.0))
        assert ended.status == fo.Status.DIVERGED
        assert torch.isfinite(ended.position).all()
        assert guarded.status != fo.Status.DIVERGED


def test_without_a_guard_an_error_that_is_too_large_asks_for_a_shorter_step():
    # Where a whole step ends at a loss beyond all numbers, its rejection needs none there.
    steep = Loss(lambda theta: (theta**12).sum(-1), 1)
    control = fo.ElementaryControl(first_step=1.0, largest_growth=None)
    where = torch.tensor([1.5], dtype=torch.float64)
    run = fo.integrate(DESCENT, AUTHOR, steep, where, control=control, steps=20)
    assert run.status == fo.Status.STEPS_TAKEN
    assert run.counts["rejected"] > 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fo.EulerRichardson("half"), fo.CompatibilityError, "no variant 'half'"),
        (lambda: fo.ElementaryControl(tolerance=0.0), fo.ConfigurationError, "is positive"),
        (lambda: fo.ElementaryControl(largest_growth=0.5), fo.ConfigurationError, "at least 1"),
        (
            lambda: fo.EulerRichardson().check(fo.flows.langevin(temperature=0.1)),
            fo.CompatibilityError,
            "has noise",
        ),
        (
            lambda: fo.ElementaryControl().check(DESCENT, fo.Euler()),
            fo.CompatibilityError,
            "estimates no error",
        ),
    ],
)
def test_wrong_use_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
