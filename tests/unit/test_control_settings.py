"""Settings of step controls: numbers out of range are refused, and steps stay finite at rest."""

import math

import pytest
import torch

import flowopt as fo
from flowopt import controls
from flowopt.controls import Damping, GradientOnly, HaganMenhaj, Nielsen, Solved
from flowopt.registry import CONTROLS

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
DOPRI5 = fo.RungeKutta("dopri5")
MARQUARDT = fo.LinearlyImplicitEuler(gauss_newton=True)
PROJECTED = fo.Projected(fo.Euler())
LENGTHENING = {
    "energy": (fo.Euler(), lambda h: fo.LyapunovControl(first_step=h, growth=2.0)),
    "slope": (fo.Euler(), lambda h: GradientOnly(first_step=h)),
    "error": (DOPRI5, lambda h: fo.ErrorControl(first_step=h)),
    "elementary": (DOPRI5, lambda h: fo.ElementaryControl(first_step=h)),
    "solved": (PROJECTED, lambda h: Solved(first_step=h, growth=2.0)),
}


@pytest.mark.parametrize(("dtype", "long"), [(torch.float64, 1e305), (torch.float32, 1e36)])
@pytest.mark.parametrize("name", LENGTHENING)
def test_a_trajectory_at_rest_takes_its_steps_however_long_they_have_become(name, dtype, long):
    scheme, control = LENGTHENING[name]
    flow, start = fo.flows.gradient_flow(), torch.zeros(2, dtype=dtype)
    solution = fo.integrate(flow, scheme, QUADRATIC, start, control=control(long), steps=30)
    assert fo.Status(int(solution.status)) == fo.Status.STEPS_TAKEN
    # Of Euler's step nothing is longer than h itself, which its type holds.
    assert solution.counts["rejected"] == 0 or scheme.gradient_evaluations(flow) > 1
    assert torch.isfinite(solution.state.time)
    assert torch.equal(solution.position, start)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -1.0, 0.0, "a", [0.1, "a"], True])
@pytest.mark.parametrize(
    "control", [fo.ErrorControl, fo.ElementaryControl, fo.LyapunovControl, fo.ExpectedSlope,
                GradientOnly, Solved],
)  # fmt: skip
def test_a_first_step_is_positive_and_finite(control, bad):
    with pytest.raises(fo.ConfigurationError, match="first_step is (positive and finite|a real)"):
        control(first_step=bad)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fo.ErrorControl(rtol=math.inf), "rtol is positive and finite, got inf"),
        (lambda: fo.ErrorControl(rtol=START), "rtol is a single number, got tensor"),
        (lambda: fo.ElementaryControl(tolerance=0.0), "tolerance is positive and finite, got 0.0"),
        (lambda: fo.ElementaryControl(largest_growth="a"), "largest_growth is a real number"),
        (lambda: fo.LyapunovControl(growth="a"), "growth is a real number .* got 'a'"),
        (
            lambda: fo.LyapunovControl(first_step=START, largest_step=1.5),
            r"first_step=tensor\(.* is beyond largest_step=1.5",
        ),
        (lambda: Solved(first_step=1.0, largest_step=0.5), "1.0 is beyond largest_step=0.5"),
        (lambda: fo.LyapunovControl(bisections=61), "bisections is a whole number up to 60"),
        (lambda: fo.LyapunovControl(bisections=True), "bisections is a whole number up to 60"),
        (lambda: fo.LyapunovControl(bisections=[]), r"up to 60, got \[\]"),
        (lambda: fo.ExpectedSlope(rule=["path"]), r"rule=\['path'\]: give one of 'path'"),
        (lambda: Damping(Nielsen(), damping=math.inf), "damping is positive and finite, got inf"),
        (lambda: Damping(HaganMenhaj(factor="a")), "factor is a real number"),
        (lambda: Damping(HaganMenhaj(factor=math.inf)), "factor is finite and more than 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(make, match):
    with pytest.raises(fo.ConfigurationError, match=match):
        make()


@pytest.mark.parametrize("name", ["damping", "least"])
def test_dampings_are_one_number_or_one_per_trajectory(name):
    control = Damping(Nielsen(), **{name: torch.ones(3, dtype=torch.float64)})
    flow, start = fo.flows.gradient_flow(), START.expand(5, 2)
    with pytest.raises(fo.CompatibilityError, match=rf"{name} has shape \(3,\), the batch .*5,"):
        fo.integrate(flow, MARQUARDT, fo.problems.rosenbrock(), start, control=control, steps=1)


@pytest.mark.parametrize(
    "control",
    [
        *(build(0.125) for name, build in CONTROLS.items() if name != "schedule"),
        fo.LyapunovControl(restart=True),
        fo.LyapunovControl(model=0.9, cumulative=True),
        fo.LyapunovControl(bisections=3),
    ],
    ids=repr,
)
def test_a_control_prints_as_it_is_written(control):
    assert repr(eval(repr(control), vars(controls))) == repr(control)


def test_a_tolerance_may_be_relative_alone():
    # The momentum begins at 0, where its size is no measure of a step.
    flow, control = fo.flows.heavy_ball(friction=0.0), fo.ErrorControl(rtol=1e-9, atol=1e-300)
    run = fo.integrate(flow, DOPRI5, QUADRATIC, START, control=control, duration=1.0, steps=1000)
    assert fo.Status(int(run.status)) == fo.Status.TIME_REACHED
    exact = START * torch.cos(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert torch.allclose(run.position, exact, rtol=1e-7)


TOLERANT = {
    "error": lambda tolerance: fo.ErrorControl(rtol=tolerance, atol=1e-7),
    "elementary": lambda tolerance: fo.ElementaryControl(tolerance=tolerance),
}


@pytest.mark.parametrize("name", TOLERANT)
def test_tolerances_below_rounding_cost_what_rounding_costs(name):
    flow, start = fo.flows.heavy_ball(friction=0.0), START.to(torch.float32)
    runs = [
        fo.integrate(
            flow,
            DOPRI5,
            QUADRATIC,
            start,
            control=TOLERANT[name](tolerance),
            duration=1.0,
            steps=500,
        )
        for tolerance in (torch.finfo(torch.float32).eps, 1e-12)
    ]
    assert all(fo.Status(int(run.status)) == fo.Status.TIME_REACHED for run in runs)
    assert torch.equal(runs[0].position, runs[1].position)
    assert int(runs[0].steps) == int(runs[1].steps)
    exact = START * torch.cos(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert torch.allclose(runs[1].position.double(), exact, rtol=1e-5)
