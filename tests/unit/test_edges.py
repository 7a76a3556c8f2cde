"""Unusual but sensible uses: what they give is right, or they are refused."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.optim import FlowOptimizer

STIFFNESS = torch.tensor([1.0, 3.0], dtype=torch.float64)
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
PROBLEM = fo.problems.quadratic(STIFFNESS)
GRADIENT_FLOW = fo.flows.gradient_flow()


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("A: dtheta/dt=p\nB: dp/dt=-g*L\nO: dp/dt=-p", fo.Splitting("BAOAB")),
        ("A: dtheta/dt=-g\nQ: dq/dt=theta-q\nS: dtheta/dt=-q\nstart q=theta", fo.Splitting("SAQ")),
        ("A: dtheta/dt=-q\nB: dq/dt=g", fo.RungeKutta("rk4")),
    ],
    ids=["moved by the loss", "a start that is the position", "a slope that is the gradient"],
)
def test_a_closure_that_writes_in_place_leaves_the_start_of_the_step_alone(text, scheme):
    flow = fo.Flow.from_text(text)
    parameter = nn.Parameter(START.clone())
    optimizer = FlowOptimizer([parameter], flow, scheme, lr=0.1)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        loss = (0.5 * STIFFNESS * parameter**2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    solution = fo.integrate(flow, scheme, PROBLEM, START, step_size=0.1, steps=3)
    torch.testing.assert_close(parameter.detach(), solution.position, rtol=1e-14, atol=0)
    for name in flow.variables[1:]:
        expected = torch.stack(solution.state.variables[name], -1)
        torch.testing.assert_close(optimizer.state[parameter][name], expected, rtol=1e-14, atol=0)


def test_the_rate_of_an_energy_of_a_noisy_scalar_has_the_term_of_ito():
    flow = fo.Flow.from_text(
        "A: dtheta/dt=-g\nX: dxi/dt=-xi+sqrt(2)*dW/dt\nscalar xi\nenergy e: L+xi**2/2"
    )
    assert str(flow.energy_rate("e")) == "-g**2 - xi**2 + 1"


@pytest.mark.parametrize(
    ("step_size", "duration"), [(0.02, 10), (0.01, 5), (0.005, 2), (0.002, 5), (0.001, 10)]
)
def test_a_duration_of_whole_steps_takes_so_many(step_size, duration):
    solution = fo.integrate(
        GRADIENT_FLOW, fo.Euler(), PROBLEM, START, step_size=step_size, duration=float(duration)
    )
    assert solution.steps.item() == round(duration / step_size)
    assert solution.state.time.item() == duration


def test_a_duration_is_refused_where_rates_are_per_step():
    method = fo.classic.sgd(lr=0.1, momentum=0.5)
    with pytest.raises(fo.CompatibilityError, match="at_step_size"):
        fo.integrate(method.flow, method.scheme, PROBLEM, START, step_size=0.1, duration=0.25)


class Columns:
    """A loss that is right for one batch axis and mixes up two."""

    dim = 2

    def loss(self, theta):
        first, second = theta.unbind(-1) if theta.ndim < 3 else theta.transpose(0, 2).unbind(0)
        return first**2 + 2 * second


def test_a_loss_is_asked_with_the_one_batch_axis_that_it_was_tried_with():
    start = torch.randn(3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = fo.integrate(GRADIENT_FLOW, fo.Euler(), Columns(), start, step_size=0.1, steps=1)
    first, second = solution.position.unbind(-1)
    torch.testing.assert_close(solution.loss, first**2 + 2 * second, rtol=0, atol=0)


def test_an_ensemble_continues_identically_where_a_member_has_ended_earlier():
    torch.manual_seed(0)
    data = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    problem = fo.problems.network(
        nn.Linear(3, 1).double(),
        nn.functional.mse_loss,
        data,
        batch=fo.problems.Minibatches(5),
    )
    start = problem.start(3)
    start["weight"][1] = torch.nan
    settings = {"step_size": 0.05, "seed": 3}

    def run(start, steps):
        return fo.integrate(GRADIENT_FLOW, fo.Euler(), problem, start, steps=steps, **settings)

    whole, halves = run(start, 20), run(run(start, 10).state, 10)
    assert torch.equal(whole.position["weight"][[0, 2]], halves.position["weight"][[0, 2]])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("M: dm/dt=g-m\nV: dv/dt=m-v\nA: dtheta/dt=-v\nstart m = g\nstart v = m", "start of 'v'"),
        ("A: dtheta/dt=-g\nX: dxi/dt=-xi\nscalar xi\nstart xi = theta", "start of 'xi'"),
        ("A: dtheta/dt=p-g\nX: dxi/dt=dW/dt\nX: dp/dt=dW/dt\nscalar xi", "drives a scalar"),
    ],
)
def test_equations_that_mean_nothing_are_refused(text, match):
    with pytest.raises(fo.DefinitionError, match=match):
        fo.Flow.from_text(text)


def test_a_total_of_a_number_counts_the_elements():
    flow = fo.Flow.from_text("A: dtheta/dt = -g/total(1)")
    moved = fo.integrate(flow, fo.Euler(), PROBLEM, START, step_size=0.1, steps=1).position
    torch.testing.assert_close(moved, START - 0.05 * STIFFNESS * START, rtol=1e-15, atol=0)


class Flat:
    """A loss that stays finite wherever θ is."""

    dim = 1

    def loss(self, theta):
        return torch.atan(theta).sum(-1)


def test_a_position_that_is_not_finite_is_a_divergence_whatever_the_loss_says():
    solution = fo.integrate(
        fo.flows.heavy_ball(friction=-10.0),
        fo.Splitting("OBA"),
        Flat(),
        torch.ones(1, dtype=torch.float64),
        step_size=1.0,
        steps=100,
    )
    assert solution.status == fo.Status.DIVERGED
    assert torch.isfinite(solution.position).all()


@pytest.mark.parametrize(
    ("stiffness", "kind"),
    [([1.0, 2.0], "minimum"), ([-1.0, 2.0], "saddle"), ([-1.0], "maximum"), ([0.0], "degenerate")],
)
def test_a_quadratic_knows_what_its_origin_is(stiffness, kind):
    (origin,) = fo.problems.quadratic(stiffness).critical_points
    assert origin.kind == kind


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize("compile", [True, False])
def test_a_batch_without_members_is_a_result_with_records(shape, compile):
    solution = fo.integrate(
        GRADIENT_FLOW,
        fo.Euler(),
        PROBLEM,
        torch.zeros(*shape, 2, dtype=torch.float64),
        step_size=0.1,
        steps=5,
        record={"loss": 1, "position": 2},
        compile=compile,
    )
    assert solution.status.shape == solution.cost.shape == shape
    assert solution.records["loss"].shape == solution.times["loss"].shape == (1, *shape)
    assert solution.to_xarray().position.shape == (1, *shape, 2)


@pytest.mark.parametrize("start", [START, START.expand(3, 2)], ids=["one", "three"])
def test_no_steps_are_a_result_that_leaves_the_engine_open(start):
    still = fo.integrate(
        GRADIENT_FLOW, fo.Euler(), PROBLEM, start, step_size=0.1, steps=0, compile=True
    )
    assert (still.status == fo.Status.STEPS_TAKEN).all()
    assert torch.equal(still.position, start)
    assert still.engine == "eager torch: there is nothing to step"
    assert still.state.native is None


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_quadratic_of_less_than_full_rank_is_degenerate_and_a_sum_of_squares(rank):
    generator = torch.Generator().manual_seed(rank)
    factors = torch.randn(rank, 4, generator=generator, dtype=torch.float64)
    problem = fo.problems.quadratic(factors.T @ factors)
    (origin,) = problem.critical_points
    assert origin.kind == "degenerate"
    assert origin.eigenvalues.count(0.0) == 4 - rank
    theta = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(problem.residuals(theta).square().sum() / 2, problem.loss(theta))
