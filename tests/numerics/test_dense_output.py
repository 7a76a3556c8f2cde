"""States at given times within steps: exact at their ends, of their order between, each its own."""

from fractions import Fraction

import pytest
import torch

import flowopt as fo
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.registry import SCHEMES
from tests.reference.states import HILLS
from tests.reference.training import flat_position, small_problem

DOPRI5 = fo.RungeKutta("dopri5")
FLOW = fo.flows.heavy_ball(friction=0.3)
START = torch.tensor([0.8, 0.6], dtype=torch.float64)
STARTS = torch.tensor([[0.8, 0.6], [-1.1, 0.4], [0.1, 2.0]], dtype=torch.float64)
TIMES = torch.linspace(0.0, 2.0, 41, dtype=torch.float64)
INTERPOLATING = {name: build() for name, build in SCHEMES.items() if build().interpolant_order}


def run(start=START, times=TIMES, *, names=("theta", "p"), scheme=DOPRI5, **settings):
    length = {} if "control" in settings else {"step_size": 0.3}
    end = {} if "steps" in settings else {"duration": 2.0}
    settings = {"record": dict.fromkeys(names, times), **length, **end, **settings}
    return fo.integrate(FLOW, scheme, HILLS, start, **settings)


def worst_error(solution, times=TIMES):
    """Largest error of the records of one trajectory from `START`."""
    exact = fo.adapters.reference_solution(FLOW, HILLS, START, times).state.variables
    errors = [solution.records[name] - torch.stack(exact[name], -1) for name in ("theta", "p")]
    return float(torch.stack(errors).abs().max())


def test_at_the_ends_of_steps_records_at_times_are_those_of_the_steps():
    control = fo.ErrorControl(rtol=1e-4, atol=1e-4, first_step=5.0)
    by_step = run(control=control, duration=7.0, record={"position": 1, "p": 1})
    assert by_step.counts["rejected"] > 0
    at_times = run(control=control, duration=7.0, names=("position", "p"), times=by_step.times["p"])
    for name in ("position", "p"):
        assert torch.equal(at_times.records[name], by_step.records[name])
        assert torch.equal(at_times.times[name], by_step.times[name])


@pytest.mark.parametrize("name", INTERPOLATING)
def test_states_within_a_step_have_the_order_that_the_scheme_claims(name):
    scheme, errors = INTERPOLATING[name], []
    for step_size in (0.1, 0.05, 0.025):
        times = step_size * torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
        solution = run(times=times, scheme=scheme, step_size=step_size, steps=1)
        errors.append(worst_error(solution, times))
    first, second = torch.log2(torch.tensor(errors[:-1]) / torch.tensor(errors[1:]))
    assert abs(float(2 * second - first) - (scheme.interpolant_order + 1)) < 0.1, errors


def test_pairs_of_order_five_have_interpolants_of_order_four():
    orders = {name: scheme.interpolant_order for name, scheme in INTERPOLATING.items()}
    assert orders == {"dopri5": 4, "tsit5": 4}


def test_the_interpolant_of_tsitouras_is_the_printed_one():
    """Weights at half the step, by the factors of the paper."""
    printed = [
        -1.0530884977290216 * 0.5 * (0.5 - 1.3299890189751412)
        * (0.25 - 1.4364028541716351 * 0.5 + 0.7139816917074209),
        0.1017 * 0.25 * (0.25 - 2.1966568338249754 * 0.5 + 1.2949852507374631),
        2.490627285651252793 * 0.25 * (0.25 - 2.38535645472061657 * 0.5 + 1.57803468208092486),
        -16.54810288924490272 * (0.5 - 1.21712927295533244) * (0.5 - 0.61620406037800089) * 0.25,
        47.37952196281928122 * (0.5 - 1.203071208372362603) * (0.5 - 0.658047292653547382) * 0.25,
        -34.87065786149660974 * (0.5 - 1.2) * (0.5 - 2 / 3) * 0.25,
        2.5 * (0.5 - 1) * (0.5 - 0.6) * 0.25,
    ]  # fmt: skip
    rows = fo.RungeKutta("tsit5").tableau.interpolant
    found = [float(sum(c * Fraction(1, 2) ** n for n, c in enumerate(row, 1))) for row in rows]
    assert found == pytest.approx(printed, rel=1e-14)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_between_steps_the_error_stays_within_the_tolerance_too(tolerance):
    solution = run(control=fo.ErrorControl(rtol=tolerance, atol=tolerance))
    assert worst_error(solution) < tolerance


@pytest.mark.parametrize(
    "control", [fo.Constant(0.3), fo.ErrorControl(rtol=1e-6, atol=1e-6, first_step=2.0)], ids=repr
)
def test_each_trajectory_has_the_records_that_it_has_alone_and_none_after_its_end(control):
    durations = torch.tensor([0.51, 2.0, 1.2], dtype=torch.float64)
    together = run(STARTS, control=control, duration=durations)
    for member, (start, duration) in enumerate(zip(STARTS, durations, strict=True)):
        alone = run(start, control=control, duration=duration)
        ended = duration < TIMES
        assert torch.equal(torch.isnan(alone.times["p"]), ended)
        assert torch.equal(alone.times["p"][~ended], TIMES[~ended])
        for name in ("theta", "p"):
            records = together.records[name][:, member]
            torch.testing.assert_close(records, alone.records[name], rtol=0, atol=0, equal_nan=True)
            assert torch.equal(torch.isnan(records).all(-1), ended)
        assert torch.equal(torch.isnan(together.times["p"][:, member]), ended)


def test_a_trajectory_that_diverges_leaves_those_of_others_alone():
    starts = torch.tensor([[0.8, 0.6], [torch.inf, 0.4]], dtype=torch.float64)
    together = run(starts)
    assert torch.equal(together.records["theta"][:, 0], run().records["theta"])
    assert torch.isnan(together.times["theta"][1:, 1]).all()


def test_two_halves_have_the_records_of_the_whole():
    whole, first = run(steps=6).records["p"], run(steps=3)
    second = run(first.state, steps=3).records["p"]
    first = first.records["p"]
    assert torch.isnan(second[TIMES < 0.85]).all()
    joined = torch.where(torch.isnan(first), second, first)
    torch.testing.assert_close(joined, whole, rtol=0, atol=0, equal_nan=True)


def test_a_time_that_the_last_step_misses_by_rounding_is_recorded():
    """Ten steps of 0.1 end at 0.9999999999999999."""
    times = torch.tensor([0.95, 1.0], dtype=torch.float64)
    solution = run(times=times, step_size=0.1, steps=10)
    assert float(solution.state.time) < 1.0
    torch.testing.assert_close(solution.records["theta"][1], solution.position, rtol=0, atol=1e-15)


def test_scalars_are_recorded_at_times():
    flow = fo.flows.adam(momentum_rate=2.0, square_rate=1.0, eps=0.5)
    record = {"u_m": TIMES[1:]}
    solution = fo.integrate(flow, DOPRI5, HILLS, START, step_size=0.02, steps=110, record=record)
    expected = -torch.expm1(-2.0 * TIMES[1:])
    torch.testing.assert_close(solution.records["u_m"], expected, rtol=1e-7, atol=0)


def test_a_network_is_recorded_at_times_in_one_row():
    problem = small_problem()
    times = torch.tensor([0.0, 0.05, 0.2], dtype=torch.float64)
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        DOPRI5,
        problem,
        problem.start(),
        step_size=0.1,
        steps=2,
        record={"position": times},
    )
    assert solution.records["position"].shape == (3, problem.dim)
    assert torch.equal(solution.records["position"][2], flat_position(solution.position))


def test_the_engine_says_why_it_is_eager_torch():
    assert "interpolated" in run(steps=3).engine
    with pytest.raises(CompatibilityError, match="compile=True: records at times"):
        run(compile=True)


@pytest.mark.parametrize("scheme", [fo.RungeKutta("rk4"), fo.Splitting("OBA")], ids=repr)
def test_a_scheme_that_does_not_interpolate_is_refused(scheme):
    with pytest.raises(CompatibilityError, match=r"use RungeKutta\('dopri5'\)"):
        run(scheme=scheme)


@pytest.mark.parametrize("name", ["loss", "step_size", "energy", "speed", lambda state, _: 0.0])
def test_what_is_not_interpolated_is_refused(name):
    with pytest.raises(ConfigurationError, match=r"interpolated are \['position', 'theta', 'p'\]"):
        run(names=(name,))


@pytest.mark.parametrize(
    "times",
    [
        torch.tensor(1.0, dtype=torch.float64),
        TIMES.float(),
        TIMES.flip(0),
        TIMES[:1].repeat(2),
        TIMES / 0.0,
    ],
    ids=["number", "float32", "decreasing", "twice", "infinite"],
)
def test_times_that_do_not_increase_or_are_no_list_are_refused(times):
    with pytest.raises(ConfigurationError, match="one-dimensional, finite, increasing and in"):
        run(times=times)
