"""Gradient-only search: the published loop, what it costs, and fresh minibatches."""

import pytest
import torch

import flowopt as fo
from flowopt import GradientOnly

POLY_TWO = fo.problems.analytic("poly_two")
STARTS = torch.tensor([[-2.5, 2.0], [0.3, 0.4], [1.5, -2.9], [-1.0, 1.4]], dtype=torch.float64)
DESCENT = fo.flows.gradient_flow()


def searched_descent(problem, start, *, factor, curvature, first, longest, least, steps):
    """GOLS-I written out: where the slope along −g changes sign, by its values alone."""
    theta, h, path, rejected = start, first, [start], 0
    while len(path) <= steps:
        gradient = problem.gradient(theta)

        def slope(h, theta=theta, gradient=gradient):
            return -float(problem.gradient(theta - h * gradient) @ gradient)

        length = float(gradient.norm())
        at_end, begun = slope(h), h
        if at_end < 0:
            while at_end < 0 and factor * h * length <= longest:
                h, rejected = factor * h, rejected + 1
                at_end = slope(h)
        elif at_end > curvature * float(gradient @ gradient) and begun >= factor * least:
            while True:
                h, rejected = h / factor, rejected + 1
                at_end = slope(h)
                if at_end < 0 or h < factor * least:
                    break
        theta = theta - h * gradient
        path.append(theta)
    return path, rejected


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "native"])
@pytest.mark.parametrize("longest", [0.2, 10.0])
def test_descent_is_the_published_search(longest, compiled):
    control = GradientOnly(first_step=0.1, longest_move=longest)
    record = {"position": 1}
    run = fo.integrate(
        DESCENT,
        fo.Euler(),
        POLY_TWO,
        STARTS,
        control=control,
        steps=15,
        record=record,
        compile=compiled,
    )
    for member, start in enumerate(STARTS):
        path, rejected = searched_descent(
            POLY_TWO,
            start,
            factor=2.0,
            curvature=0.9,
            first=0.1,
            longest=longest,
            least=1e-8,
            steps=15,
        )
        found = run.records["position"][:, member]
        torch.testing.assert_close(found, torch.stack(path), rtol=1e-9, atol=1e-9)
        assert run.counts["rejected"][member] == rejected


def test_every_trial_costs_a_gradient_and_no_loss():
    class Counted:
        dim, calls = 2, 0

        def loss(self, theta):
            Counted.calls += theta.requires_grad
            return POLY_TWO.loss(theta)

    start = STARTS[0]
    run = fo.integrate(DESCENT, fo.Euler(), Counted(), start, control=GradientOnly(), steps=10)
    assert run.counts["rejected"] > 0
    assert run.counts["gradients"] == 1 + 10 + run.counts["rejected"] == Counted.calls
    assert run.counts["losses"] == 0


def test_on_a_line_it_steps_over_the_minimum_by_less_than_its_factor():
    problem, start = fo.problems.quadratic([2.0]), torch.tensor([1.0], dtype=torch.float64)
    for first in (1e-3, 7.0):
        control = GradientOnly(first_step=first, longest_move=10.0)
        run = fo.integrate(DESCENT, fo.Euler(), problem, start, control=control, steps=1)
        assert 0.25 <= run.state.time.item() <= 1.0


def test_it_trains_on_a_fresh_minibatch_at_every_trial():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(256, 1, generator=generator, dtype=torch.float64)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.1 * noise
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    problem = fo.problems.network(
        module, torch.nn.functional.mse_loss, (inputs, targets), batch=fo.problems.Minibatches(16)
    )
    control = GradientOnly(first_step=1e-4)
    run = fo.integrate(
        DESCENT, fo.Euler(), problem, problem.start(), control=control, steps=60, compile=False
    )
    solution = torch.linalg.lstsq(inputs, targets).solution.flatten()
    weights = run.position["weight"].flatten()
    assert run.counts["rejected"] > 5
    assert (weights - solution).norm() < 0.2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GradientOnly(factor=1.0), fo.ConfigurationError, "more than 1"),
        (lambda: GradientOnly(curvature=1.0), fo.ConfigurationError, "curvature lies in"),
        (
            lambda: GradientOnly().check(fo.flows.langevin(temperature=0.1), fo.Splitting("OBA")),
            fo.CompatibilityError,
            "has noise",
        ),
    ],
)
def test_wrong_use_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_search_ends_where_the_loss_falls_however_long_the_step_is():
    class Falling:
        dim = 1

        def loss(self, theta):
            return torch.exp(-theta[..., 0])

    # An implicit step to the right is Newton's at most, of length 1.
    control = GradientOnly(first_step=0.1, longest_move=100.0, largest_step=1e3)
    start = torch.zeros(1, dtype=torch.float64)
    run = fo.integrate(
        DESCENT, fo.LinearlyImplicitEuler(), Falling(), start, control=control, steps=3
    )
    assert run.status == fo.Status.STEPS_TAKEN
    assert run.position.item() == pytest.approx(3.0, abs=0.1)
