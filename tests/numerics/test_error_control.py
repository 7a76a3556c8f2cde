"""Steps by error: accuracy follows the tolerance, and no trajectory costs another one anything."""

import math

import pytest
import torch

import flowopt as fo
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.schemes import TABLEAUX

HARMONIC = fo.flows.heavy_ball(friction=0.0)
PROBLEM = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([[1.0, 0.5], [2.0, -1.0]], dtype=torch.float64)
DOPRI5 = fo.RungeKutta("dopri5")


class Blow:
    """θ' = 4θ³ under the gradient flow: from 1 it is infinite at t = 1/8."""

    dim = 1

    def loss(self, theta):
        return -(theta**4).sum(-1)


def solve(start=START, *, tolerance=1e-6, scheme=DOPRI5, first_step=None, **settings):
    control = fo.ErrorControl(rtol=tolerance, atol=tolerance, first_step=first_step)
    settings = {"duration": 10.0, **settings}
    return fo.integrate(HARMONIC, scheme, PROBLEM, start, control=control, **settings)


def worst_error(solution):
    exact = START * torch.cos(torch.tensor([10.0, 20.0], dtype=torch.float64))
    return float((solution.position - exact).abs().max())


@pytest.mark.parametrize(("scheme", "tolerance"), [("dopri5", 1e-3), ("heun", 1e-2)])
def test_a_hundred_times_smaller_tolerance_gives_a_hundred_times_smaller_error(scheme, tolerance):
    method = fo.RungeKutta(scheme)
    tolerances = (tolerance, tolerance / 100)
    errors = [worst_error(solve(scheme=method, tolerance=value)) for value in tolerances]
    assert 50 < errors[0] / errors[1] < 200


def test_every_trajectory_ends_at_the_very_end_of_the_time_span():
    solution = solve()
    assert solution.state.time.tolist() == [10.0, 10.0]
    assert (solution.status == fo.Status.TIME_REACHED).all()


def test_a_trajectory_takes_the_steps_that_it_takes_alone():
    together = solve()
    for index, start in enumerate(START):
        alone = solve(start)
        assert int(alone.steps) == int(together.steps[index])
        assert torch.equal(alone.position, together.position[index])


def test_a_first_step_that_is_too_long_is_rejected_and_costs_six_gradients():
    solution = solve(first_step=50.0)
    trials = solution.steps + solution.counts["rejected"]
    assert (solution.counts["rejected"] > 0).all()
    assert torch.equal(solution.counts["gradients"], 1 + 6 * trials)
    assert worst_error(solution) < 1e-4


def test_a_blow_up_ends_where_time_resolves_no_step_and_leaves_others_alone():
    start = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    solution = fo.integrate(
        fo.flows.gradient_flow(), DOPRI5, Blow(), start, control=fo.ErrorControl(), duration=5.0
    )
    assert solution.status.tolist() == [fo.Status.STEP_TOO_SMALL, fo.Status.TIME_REACHED]
    assert math.isclose(float(solution.state.time[0]), 0.125, rel_tol=1e-6)
    assert torch.isfinite(solution.position).all()


def test_records_are_taken_at_accepted_steps_of_each_trajectory():
    solution = solve(first_step=50.0, record={"position": 10})
    times = solution.times["position"]
    assert times.shape == solution.records["position"].shape[:2]
    for index, steps in enumerate(solution.steps.tolist()):
        known = times[:, index][~torch.isnan(times[:, index])]
        assert len(known) == steps // 10 + 1
        assert (known.diff() > 0).all()


def _by_hand(start, tolerance, first_step=None, end=10.0):
    """Accepted times of one trajectory, by a controller in plain Python numbers."""
    tableau = TABLEAUX["dopri5"]
    frequencies = [1.0, 4.0]

    def slope(z):
        return z[2:] + [-k * x for k, x in zip(frequencies, z[:2], strict=True)]

    def norm(v, a, b):
        scale = [tolerance + tolerance * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True)]
        return math.sqrt(sum((x / s) ** 2 for x, s in zip(v, scale, strict=True)) / len(v))

    z, time, previous, failed, times = [*start, 0.0, 0.0], 0.0, 1.0, False, []
    step = first_step or 0.01 * norm(z, z, z) / norm(slope(z), z, z)
    while time < end:
        last = step * (1 + 1e-6) >= end - time
        step = end - time if last else step
        slopes = []
        for row in tableau.stages:
            point = [
                x + step * sum(float(a) * k[i] for a, k in zip(row, slopes, strict=False))
                for i, x in enumerate(z)
            ]
            slopes.append(slope(point))
        gaps = [float(b - e) for b, e in zip(tableau.weights, tableau.embedded, strict=True)]
        defect = [step * sum(d * k[i] for d, k in zip(gaps, slopes, strict=True)) for i in range(4)]
        error = max(norm(defect, z, point), 1e-10)
        if error <= 1.0:
            time, z = (end if last else time + step), point
            times.append(time)
            factor = min(max(0.9 * error ** (-0.7 / 5) * previous ** (0.4 / 5), 0.2), 5.0)
            factor, previous, failed = min(factor, 1.0) if failed else factor, error, False
        else:
            factor, failed = min(max(0.9 * error ** (-1 / 5), 0.2), 1.0), True
        step *= factor
    return times


def test_the_accepted_times_are_those_of_a_controller_in_plain_numbers():
    solution = solve(START[0], tolerance=1e-4, record={"position": 1})
    times = solution.times["position"][1:]
    expected = torch.tensor(_by_hand(START[0].tolist(), 1e-4), dtype=torch.float64)
    torch.testing.assert_close(times, expected, rtol=1e-9, atol=0)


def test_a_step_is_accepted_up_to_the_tolerance_and_not_beyond():
    """First steps so close together that some errors lie just above 1 and some just below."""
    for first_step in torch.logspace(-0.8, 0.0, 21, base=10.0, dtype=torch.float64).tolist():
        solution = solve(
            START[0], tolerance=1e-4, first_step=first_step, duration=2.0, record={"position": 1}
        )
        expected = _by_hand(START[0].tolist(), 1e-4, first_step, 2.0)
        times = solution.times["position"][1:].tolist()
        assert len(times) == len(expected)
        assert math.isclose(times[0], expected[0], rel_tol=1e-9)


def test_a_scheme_without_an_error_estimate_is_refused():
    with pytest.raises(CompatibilityError, match="estimates no error"):
        solve(scheme=fo.RungeKutta("rk4"))


def test_a_noisy_flow_is_refused():
    class Estimating(fo.Splitting):
        error_order = 1

    with pytest.raises(CompatibilityError, match="has noise"):
        fo.integrate(
            fo.flows.langevin(temperature=0.1),
            Estimating("BAOAB"),
            PROBLEM,
            START,
            control=fo.ErrorControl(),
            duration=1.0,
        )


def test_a_tolerance_that_is_not_positive_is_refused():
    with pytest.raises(ConfigurationError, match="rtol is positive"):
        fo.ErrorControl(rtol=0.0)
