"""Damping rules of Levenberg–Marquardt, against published loops and SciPy."""

import pytest
import scipy.optimize
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.controls import BoldUphill, Damping, Fletcher, HaganMenhaj, Nielsen
from tests.reference import marquardt
from tests.reference.states import HILLS, Loss

FLOW = fo.flows.gradient_flow()
MARQUARDT = fo.LinearlyImplicitEuler(gauss_newton=True)
ACCELERATED = fo.LinearlyImplicitEuler(gauss_newton=True, acceleration=True)
RULES = {
    "hagan_menhaj": (HaganMenhaj(), MARQUARDT),
    "fletcher": (Fletcher(), MARQUARDT),
    "nielsen": (Nielsen(), MARQUARDT),
    "bold_uphill": (BoldUphill(), MARQUARDT),
    "accelerated": (HaganMenhaj(), ACCELERATED),
}
ROSENBROCK = fo.problems.rosenbrock()
STARTS = torch.tensor([[-1.2, 1.0], [3.0, -3.0], [0.5, 2.0]], dtype=torch.float64)


def run(rule, problem, start, steps=6, scheme=MARQUARDT, damping=10.0, least=1e-8, **settings):
    control = Damping(rule, damping=damping, least=least)
    return fo.integrate(FLOW, scheme, problem, start, control=control, steps=steps, **settings)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_the_published_loop(name):
    rule, scheme = RULES[name]
    settings = {"scheme": scheme, "record": {"position": 1}}
    found = run(rule, ROSENBROCK, STARTS, damping=0.1, **settings)
    assert found.counts["rejected"].sum() > 0
    for member, start in enumerate(STARTS):
        loop = getattr(marquardt, name)
        path = loop(marquardt.Fit(ROSENBROCK.residuals, start), damping=0.1, steps=6)
        assert_close(found.records["position"][:, member], torch.stack(path), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_part_of_a_kernel(name):
    rule, scheme = RULES[name]
    ends = [run(rule, ROSENBROCK, STARTS, scheme=scheme, compile=c) for c in (True, False)]
    assert torch.equal(ends[0].position, ends[1].position)
    assert torch.equal(ends[0].counts["rejected"], ends[1].counts["rejected"])


# Bard 1970, as problem 8 of Moré, Garbow & Hillstrom 1981, ACM Trans. Math. Softw. 7(1), 17.
BARD = torch.tensor(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39],
    dtype=torch.float64,
)


class Bard:
    """Three parameters, fifteen residuals; the sum of squares at the minimum is 8.21487e-3."""

    dim = 3

    def residuals(self, theta):
        u = torch.arange(1.0, 16.0, dtype=theta.dtype)
        v, w = 16.0 - u, torch.minimum(u, 16.0 - u)
        x, y, z = theta[..., :1], theta[..., 1:2], theta[..., 2:]
        return BARD.to(theta) - (x + u / (v * y + w * z))


@pytest.mark.parametrize("name", RULES)
def test_a_classic_problem_ends_where_scipy_ends(name):
    rule, scheme = RULES[name]
    problem, start = Bard(), torch.ones(3, dtype=torch.float64)
    found = run(rule, problem, start, 100, scheme, stop=fo.stop.gradient(1e-9))
    expected = scipy.optimize.least_squares(
        lambda x: problem.residuals(torch.from_numpy(x)).numpy(), start.numpy(), method="lm"
    )
    assert found.status == fo.Status.GRADIENT_SMALL
    assert_close(found.position, torch.from_numpy(expected.x), rtol=1e-6, atol=0)
    assert 2 * found.loss == pytest.approx(8.21487e-3, rel=1e-5)


def test_gain_is_one_where_the_loss_is_its_model():
    """With linear residuals μ falls to a third at each step of Nielsen's."""
    problem = fo.problems.quadratic([1.0, 4.0])
    found = run(Nielsen(), problem, STARTS, 4, record={"step_size": 1}).records["step_size"]
    expected = 0.1 * 3.0 ** torch.arange(5, dtype=torch.float64)
    assert_close(found, expected[:, None].expand(5, 3), rtol=1e-12, atol=0)


def test_damping_falls_to_its_bound_and_no_further():
    # With linear residuals every step lowers the loss, so that μ = 10, 1, 0.1 would follow.
    problem, record = fo.problems.quadratic([1.0, 4.0]), {"step_size": 1}
    least = torch.tensor([0.5, 0.02, 1e-8], dtype=torch.float64)
    found = run(HaganMenhaj(), problem, STARTS, 3, damping=10.0, least=least, record=record)
    expected = torch.tensor([10.0, 1.0, 0.1, 0.01], dtype=torch.float64)[:, None].maximum(least)
    assert_close(found.records["step_size"], 1 / expected, rtol=1e-12, atol=0)


def test_acceleration_saves_steps_in_a_curved_valley():
    start, stop = torch.tensor([-1.2, 1.0], dtype=torch.float64), fo.stop.gradient(1e-8)
    taken = [
        run(HaganMenhaj(), ROSENBROCK, start, 100, scheme, stop=stop)
        for scheme in (MARQUARDT, ACCELERATED)
    ]
    assert [trial.status.item() for trial in taken] == [fo.Status.GRADIENT_SMALL] * 2
    assert taken[1].steps < taken[0].steps / 2


def test_no_step_of_a_descending_rule_climbs():
    found = run(Nielsen(), HILLS, STARTS, 10, damping=0.01, record={"loss": 1})
    assert found.counts["rejected"].sum() > 0
    assert not (found.records["loss"].diff(dim=0) > 0).any()


def test_a_step_that_leaves_the_finite_numbers_is_tried_again_with_more_damping():
    problem = Loss(
        lambda theta: 0.5 * (theta[..., 0].exp() - 2.0) ** 2,
        1,
        lambda theta: theta.exp() - 2.0,
    )
    start = torch.tensor([[-20.0]], dtype=torch.float64)
    for rule, _ in RULES.values():
        found = run(rule, problem, start, 200, damping=1e-8, stop=fo.stop.gradient(1e-9))
        assert found.counts["rejected"] > 0
        assert found.position.isfinite().all()


@pytest.mark.parametrize(
    ("scheme", "flow"),
    [(fo.Euler(), FLOW), (MARQUARDT, fo.flows.heavy_ball()), (fo.RungeKutta("heun"), FLOW)],
    ids=repr,
)
def test_other_steps_are_refused(scheme, flow):
    with pytest.raises(fo.CompatibilityError, match="judges steps of LinearlyImplicitEuler"):
        Damping(Nielsen()).check(flow, scheme)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Damping(Nielsen), "such as Nielsen"),
        (lambda: Damping(Nielsen(), damping=0.0), "damping is positive"),
        (lambda: Damping(Nielsen(), least=-1.0), "least is positive"),
        (lambda: HaganMenhaj(factor=1.0), "factor is finite and more than 1"),
        (lambda: BoldUphill(lowered=0.5), "lowered is finite and more than 1"),
        (lambda: BoldUphill(boldness=3), "boldness is 1 or 2"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        make()
