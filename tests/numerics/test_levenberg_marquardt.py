"""The damped Gauss–Newton flow, and what the records of its Euler scheme say."""

import pytest
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.flows import levenberg_marquardt
from flowopt.symbolic.functions import damped
from flowopt.symbols import g, symbol, theta
from tests.reference.states import HILLS, evaluation_of

MARQUARDT = fo.LinearlyImplicitEuler(gauss_newton=True)
START = torch.tensor([[0.7, -0.4], [1.5, 0.2], [0.3, 1.0]], dtype=torch.float64)
POLY = fo.problems.analytic("poly_two")


@pytest.mark.parametrize("compiled", [False, True])
def test_euler_with_unit_steps_is_linearly_implicit_euler_with_one_over_the_damping(compiled):
    settings = {"steps": 20, "compile": compiled}
    flow, descent = levenberg_marquardt(damping=10.0), fo.flows.gradient_flow()
    ends = [
        fo.integrate(flow, fo.Euler(), POLY, START, step_size=1.0, **settings),
        fo.integrate(descent, MARQUARDT, POLY, START, step_size=0.1, **settings),
    ]
    assert_close(ends[0].position, ends[1].position, rtol=0, atol=2e-15)


def test_one_step_differs_by_rounding_alone():
    ends = [
        fo.integrate(*pair, POLY, START, step_size=h, steps=1).position
        for pair, h in (
            ((levenberg_marquardt(damping=10.0), fo.Euler()), 1.0),
            ((fo.flows.gradient_flow(), MARQUARDT), 0.1),
        )
    ]
    assert (ends[0] - ends[1]).abs().max() <= 2.3e-16


def test_every_trajectory_may_have_its_own_damping():
    values = torch.tensor([0.5, 2.0, 10.0], dtype=torch.float64)
    settings = {"step_size": 0.5, "steps": 10}
    together = fo.integrate(
        levenberg_marquardt(damping=values), fo.Euler(), HILLS, START, **settings
    )
    for place, value in enumerate(values.tolist()):
        flow = levenberg_marquardt(damping=value)
        alone = fo.integrate(flow, fo.Euler(), HILLS, START[place], **settings)
        assert torch.equal(together.position[place], alone.position)


def test_euler_richardson_steps_it_with_the_published_control():
    """LM_ER: the probe is a whole step, h₀ = 1/μ, every trajectory in one native kernel."""
    control = fo.control.ElementaryControl(tolerance=0.01, first_step=0.1)
    settings = {"control": control, "steps": 500, "stop": fo.stop.gradient(1e-6)}
    flow, scheme = levenberg_marquardt(damping=10.0), fo.EulerRichardson("author")
    ends = [fo.integrate(flow, scheme, POLY, START, compile=c, **settings) for c in (True, False)]
    assert (ends[0].status == fo.Status.GRADIENT_SMALL).all()
    assert torch.equal(ends[0].steps, ends[1].steps)
    assert_close(ends[0].position, ends[1].position, rtol=0, atol=1e-12)


def test_its_energy_falls_at_the_rate_of_the_damped_system():
    """L' = −∇Lᵀ(Q + μI)⁻¹∇L."""
    flow = levenberg_marquardt(damping=0.3)
    state = fo.integrate(flow, fo.Euler(), HILLS, START, step_size=0.1, steps=1).state
    position = torch.stack(state.position, -1)
    found = flow.energy("loss").rate(state, evaluation_of(HILLS, state.position, flow))
    matrix = fo.problems.gauss_newton(HILLS, position) + 0.3 * torch.eye(2).double()
    gradient = torch.func.vmap(torch.func.grad(HILLS.loss))(position)
    expected = -(gradient * torch.linalg.solve(matrix, gradient)).sum(-1)
    assert_close(found, expected, rtol=1e-13, atol=0)


def test_its_loss_is_certified_never_to_rise():
    found = fo.analysis.certify(levenberg_marquardt(), "loss")
    assert found.verdict == "proved"
    wrong = fo.Flow.from_text("A: dtheta/dt = -theta**2*damped(g, mu)\nenergy e: L", mu=1.0)
    assert fo.analysis.certify(wrong, "e").verdict == "undecided"
    assert fo.analysis.certify(levenberg_marquardt(damping=-1.0), "loss").verdict == "undecided"


def test_euler_is_stable_below_two_and_twice_the_damping_over_the_curvature():
    found = fo.analysis.stability(levenberg_marquardt(damping=3.0), fo.Euler())
    assert found.largest_step_at(curvature=2.0) == pytest.approx(2.0 + 2.0 * 3.0 / 2.0)


def test_the_damped_system_has_a_name_in_texts():
    text = "A: dtheta/dt = p\nB: dp/dt = -damped(g, mu) - friction*p"
    flow = fo.Flow.from_text(text, mu=1.0, friction=2.0)
    found = fo.integrate(flow, fo.Splitting("BA"), POLY, START, step_size=0.3, steps=300)
    assert (found.loss < 1e-12).all()
    assert r"\left(Q + \mu I\right)^{-1} \nabla L" in flow.latex()


@pytest.mark.parametrize(
    "formula", [damped(theta, symbol("mu")), damped(g, symbol("mu") + 1), damped(g, theta)]
)
def test_the_damped_system_has_one_gradient_and_one_hyperparameter(formula):
    with pytest.raises(fo.DefinitionError, match=r"expected damped\(g, damping\)"):
        fo.Flow(fo.Equations(fo.Term("A", drift={theta: -formula})), mu=1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda f: fo.integrate(f, MARQUARDT, POLY, START, step_size=1.0, steps=1), "derivative"),
        (lambda f: fo.analysis.modified_equation(f, fo.Euler()), "whose derivative is not known"),
        (lambda f: fo.optim.FlowOptimizer([START], f, fo.Euler()), "optim.LevenbergMarquardt"),
    ],
)
def test_what_needs_more_than_the_flow_knows_is_refused(wrong, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        wrong(levenberg_marquardt())


# Bensaid's records, 10 000 uniform starts in [-3, 3]²: per cent ending at (-2, 1), (2, -1),
# (0, -1), (0, 1); a thousand steps tell what does not converge from what takes 214.
RECORDS = {
    "poly_two": ((20.45, 19.85, 30.30, 29.40), 0.0),
    "poly_three": ((16.76, 15.94, 35.92, 0.0), 31.4),
}


@pytest.mark.parametrize("name", RECORDS)
def test_basins_of_fixed_damping_are_those_of_the_records(name):
    """Within four standard errors of a difference; the mean number of steps is the record's."""
    shares, unfinished = RECORDS[name]
    generator = torch.Generator().manual_seed(0)
    starts = 6 * torch.rand(10_000, 2, generator=generator, dtype=torch.float64) - 3
    found = fo.integrate(
        fo.flows.gradient_flow(),
        MARQUARDT,
        fo.problems.analytic(name),
        starts,
        step_size=0.1,
        steps=1000,
        stop=fo.stop.gradient(1e-7),
        compile=True,
    )
    done = found.status == fo.Status.GRADIENT_SMALL
    centres = torch.tensor([(-2.0, 1.0), (2.0, -1.0), (0.0, -1.0), (0.0, 1.0)]).double()
    ends = (found.position[:, None] - centres).norm(dim=-1) < 0.05
    measured = [*(ends & done[:, None]).double().mean(0).tolist(), 1 - done.double().mean().item()]
    for ours, record in zip(measured, (*shares, unfinished), strict=True):
        share = record / 100
        assert abs(ours - share) <= 4 * (2 * share * (1 - share) / 10_000) ** 0.5
    if name == "poly_two":
        assert found.steps.double().mean().item() == pytest.approx(214, abs=1)
