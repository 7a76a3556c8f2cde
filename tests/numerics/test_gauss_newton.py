"""Gauss–Newton matrices, and steps with them: the rule of Levenberg and Marquardt."""

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from torch.testing import assert_close

import flowopt as fo
from flowopt.core.curvature.gauss_newton import GaussNewton
from flowopt.core.curvature.linear import MOST_UNROLLED, solve, solve_positive
from flowopt.core.oracle import as_oracle
from flowopt.core.state import as_rows, from_rows
from flowopt.registry import PROBLEMS
from tests.reference.states import HILLS, Loss, columns

FLOW = fo.flows.gradient_flow()
MARQUARDT = fo.LinearlyImplicitEuler(gauss_newton=True)
ACCELERATED = fo.LinearlyImplicitEuler(gauss_newton=True, acceleration=True)
START = torch.tensor([[0.7, -0.4], [1.5, 0.2], [0.3, 1.0]], dtype=torch.float64)
SQUARES = [name for name, build in PROBLEMS.items() if build().residuals is not None]


def one(scheme, problem, start, step_size, steps=1, **settings):
    return fo.integrate(FLOW, scheme, problem, start, step_size=step_size, steps=steps, **settings)


def gauss_newton(problem, position):
    oracle = as_oracle(problem, torch.float64, position.device)
    return GaussNewton(oracle, columns(position), None)


@pytest.mark.parametrize("name", ["hills", *SQUARES])
def test_gradient_and_matrix_are_those_of_half_the_squares_of_the_residuals(name):
    problem = HILLS if name == "hills" else PROBLEMS[name]()
    start = START[:, : problem.dim]
    jacobian = torch.stack([torch.func.jacrev(problem.residuals)(theta) for theta in start])
    residuals = problem.residuals(start)
    gradient = torch.func.vmap(torch.func.grad(problem.loss))(start)
    assert_close((jacobian.mT @ residuals[..., None])[..., 0], gradient, rtol=1e-11, atol=1e-14)
    matrix = gauss_newton(problem, start).matrix()
    assert_close(matrix, jacobian.mT @ jacobian, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in SQUARES if name not in ("quadratic",)])
def test_half_the_squares_sum_to_the_loss(name):
    problem = PROBLEMS[name]()
    start = START[:, : problem.dim]
    assert_close(0.5 * (problem.residuals(start) ** 2).sum(-1), problem.loss(start))


def test_a_product_is_that_with_the_matrix():
    found = gauss_newton(HILLS, START)
    direction = torch.tensor([0.3, -1.1], dtype=torch.float64).expand_as(START)
    product = torch.stack(found.product(columns(direction)), -1)
    expected = (found.matrix() @ direction[..., None])[..., 0]
    assert_close(product, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("step_size", [0.1, 3.0, 1e4])
def test_a_step_is_that_of_levenberg_and_marquardt(step_size):
    """θ⁺ = θ − (Q + μI)⁻¹∇L, μ = 1/h."""
    found = one(MARQUARDT, HILLS, START, step_size).position
    matrix = gauss_newton(HILLS, START).matrix() + torch.eye(2, dtype=torch.float64) / step_size
    gradient = torch.func.vmap(torch.func.grad(HILLS.loss))(START)
    assert_close(found, START - torch.linalg.solve(matrix, gradient), rtol=0, atol=2e-15)


def test_conjugate_gradients_end_at_the_dense_solution():
    iterated = fo.LinearlyImplicitEuler(iterations=2, gauss_newton=True)
    ends = [one(scheme, HILLS, START, 2.0, steps=5) for scheme in (MARQUARDT, iterated)]
    assert_close(ends[0].position, ends[1].position, rtol=0, atol=1e-13)
    assert ends[0].counts["products"].tolist() == [10] * 3
    assert ends[1].counts["products"].tolist() == [20] * 3


@pytest.mark.parametrize("scheme", [MARQUARDT, ACCELERATED], ids=repr)
def test_a_kernel_takes_the_steps_of_eager_torch_to_the_bit(scheme):
    problem = fo.problems.analytic("poly_two")
    ends = [one(scheme, problem, START, 0.1, 20, compile=c).position for c in (True, False)]
    assert torch.equal(*ends)


def accelerated_step(residuals, theta, damping):
    """Transtrum & Sethna 2012, equations 21 and 22, by dense derivatives."""
    jacobian, second = torch.func.jacrev(residuals), torch.func.hessian(residuals)
    matrix = jacobian(theta).mT @ jacobian(theta) + damping * torch.eye(len(theta)).double()
    velocity = -torch.linalg.solve(matrix, jacobian(theta).mT @ residuals(theta))
    bent = torch.einsum("kij,i,j->k", second(theta), velocity, velocity)
    turn = -0.5 * torch.linalg.solve(matrix, jacobian(theta).mT @ bent)
    kept = 2 * turn.norm() <= 0.75 * velocity.norm()
    return theta + velocity + (turn if kept else 0.0), bool(kept)


def test_acceleration_is_half_the_second_derivative_along_the_step():
    problem = fo.problems.rosenbrock()
    found = one(ACCELERATED, problem, START, 10.0).position
    steps = [accelerated_step(problem.residuals, theta, 0.1) for theta in START]
    assert {kept for _, kept in steps} == {True, False}
    assert_close(found, torch.stack([theta for theta, _ in steps]), rtol=1e-12, atol=1e-13)


def data(outputs, rows=20):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, outputs, generator=generator, dtype=torch.float64)
    return inputs, torch.sin(inputs @ weights)


def module(outputs, *between):
    torch.manual_seed(1)
    layers = [torch.nn.Linear(3, 4), torch.nn.Tanh(), *between, torch.nn.Linear(4, outputs)]
    return torch.nn.Sequential(*layers).double()


def jacobian_of(problem):
    """∂outputs/∂θ as rows, (rows, outputs, elements)."""
    call = torch.func.functional_call

    def outputs(parameters):
        return call(problem.module, parameters, (problem.inputs,))

    found = torch.func.jacrev(outputs)(problem.start())
    return torch.cat([found[name].flatten(2) for name in problem.names], -1)


def matrix_of(problem, position=None):
    leaves = problem.leaves(position or problem.start())
    return GaussNewton(problem, leaves, None)


def test_the_matrix_of_mean_squares_is_twice_the_mean_over_all_outputs():
    problem = fo.problems.network(module(2), mse_loss, data(2))
    jacobian = jacobian_of(problem).flatten(0, 1)
    expected = 2 / len(jacobian) * jacobian.mT @ jacobian
    assert_close(matrix_of(problem).matrix(), expected, rtol=0, atol=1e-14)


def test_the_matrix_of_cross_entropy_is_the_mean_of_the_covariances():
    """Schraudolph 2002, section 3: ∇²ℓ = diag p − ppᵀ."""
    inputs, targets = data(3)
    problem = fo.problems.network(module(3), cross_entropy, (inputs, targets.argmax(-1)))
    p = torch.softmax(problem.outputs(problem.start(), inputs), -1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    jacobian = jacobian_of(problem)
    expected = torch.einsum("nki,nkl,nlj->ij", jacobian, covariance, jacobian) / len(inputs)
    found = matrix_of(problem)
    assert_close(found.matrix(), expected, rtol=0, atol=1e-15)
    vector = torch.linspace(-1.0, 1.0, problem.dim, dtype=torch.float64)
    leaves = problem.leaves(problem.start())
    product = as_rows(found.product(from_rows(vector, leaves, 0)), 0)
    assert_close(product, expected @ vector, rtol=0, atol=1e-14)


def test_replicas_have_the_matrices_that_they_have_alone():
    problem = fo.problems.network(module(2), mse_loss, data(2))
    start = problem.start(3)
    start = {name: value * torch.rand_like(value) for name, value in start.items()}
    together = matrix_of(problem, start).matrix()
    for i in range(3):
        alone = matrix_of(problem, {name: value[i] for name, value in start.items()}).matrix()
        assert_close(together[i], alone, rtol=0, atol=1e-15)


def test_rows_that_meet_within_a_module_are_not_taken_apart():
    problem = fo.problems.network(
        module(2, torch.nn.BatchNorm1d(4, track_running_stats=False)), mse_loss, data(2)
    )
    jacobian = jacobian_of(problem).flatten(0, 1)
    found, counted = matrix_of(problem), []
    found._count = counted.append
    assert_close(found.matrix(), jacobian.mT @ jacobian / 20, rtol=1e-10, atol=1e-13)
    assert counted == [problem.dim]


def test_a_network_with_mean_squares_is_fitted_in_a_few_steps():
    problem = fo.problems.network(module(1), mse_loss, data(1))
    solution = one(MARQUARDT, problem, problem.start(), 1e3, 30)
    assert solution.loss < 1e-4
    # Rows apart, their Jacobian is as many products as a row has outputs.
    assert solution.counts["products"].item() == 30


class Residuals:
    """One point at a time, and no loss."""

    dim = 2

    def residuals(self, theta):
        return torch.stack([theta[0] - 1.0, 10.0 * (theta[1] - theta[0] ** 2)]) * 2**0.5


def test_residuals_are_enough_and_may_be_written_for_one_point():
    ends = [one(MARQUARDT, p, START, 0.3, 5) for p in (Residuals(), fo.problems.rosenbrock())]
    assert_close(ends[0].position, ends[1].position, rtol=1e-12, atol=1e-12)


def squares_with(residuals):
    return Loss(lambda theta: (theta**2).sum(-1), 2, residuals)


@pytest.mark.parametrize(
    ("problem", "error", "message"),
    [
        (squares_with(lambda theta: theta), fo.DataError, "half the squares of the residuals"),
        (squares_with(lambda theta: theta.sum()), fo.DataError, r"to \(3, residuals\); it gave"),
        (squares_with(None), fo.CompatibilityError, "has none: give it residuals"),
        (fo.problems.analytic("cloche"), fo.CompatibilityError, "needs residuals"),
    ],
)
def test_a_problem_without_fitting_residuals_is_refused(problem, error, message):
    with pytest.raises(error, match=message):
        one(MARQUARDT, problem, START, 0.1)


def test_acceleration_is_refused_where_it_has_no_meaning():
    with pytest.raises(fo.ConfigurationError, match="needs gauss_newton=True"):
        fo.LinearlyImplicitEuler(acceleration=True)
    with pytest.raises(fo.CompatibilityError, match="flows of theta alone"):
        ACCELERATED.check(fo.flows.heavy_ball())


@pytest.mark.parametrize("size", [1, 2, 5, MOST_UNROLLED, MOST_UNROLLED + 1])
def test_systems_are_solved(size):
    generator = torch.Generator().manual_seed(size)
    root = torch.randn(4, size, size, generator=generator, dtype=torch.float64)
    known = torch.randn(4, size, generator=generator, dtype=torch.float64)
    positive = root @ root.mT + torch.eye(size)
    for matrix, method in ((root, solve), (positive, solve_positive)):
        right = (matrix @ known[..., None])[..., 0]
        assert_close(method(matrix, right), known, rtol=1e-10, atol=1e-10)


def test_rows_are_exchanged_where_a_pivot_vanishes():
    matrix = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 4.0]]).double()
    right = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert solve(matrix, right).tolist() == [1.0, 1.0, 1.0]
    assert not solve(torch.zeros(2, 2), torch.ones(2)).isfinite().any()
    assert not solve_positive(-torch.eye(20), torch.ones(20)).isfinite().any()
