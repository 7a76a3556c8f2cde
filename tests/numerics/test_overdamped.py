"""Overdamped flows: Euler–Maruyama, and Leimkuhler and Matthews' method, without sampling."""

import math
from itertools import pairwise

import numpy
import pytest
import torch
from scipy.interpolate import BarycentricInterpolator
from scipy.linalg import solve_discrete_lyapunov
from torch.testing import assert_close

import flowopt as fo
from tests.reference.affine import affine_map
from tests.reference.states import GivenNormals, Loss, one_step, state_of

TEMPERATURE = 0.3
COUPLED = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)


def overdamped(temperature=TEMPERATURE):
    text = "A: dtheta/dt = -g + sqrt(2*temperature)*dW/dt\nenergy loss: L"
    return fo.Flow.from_text(text, name="overdamped", temperature=temperature)


def stationary_covariance(scheme, curvatures, step_size):
    """The covariance that a scheme keeps; normals that it draws ahead belong to its state."""
    problem = fo.problems.quadratic(curvatures)
    found = affine_map(overdamped(), scheme, problem, step_size)
    now, *ahead = found.noise.split(problem.dim, -1)
    matrix, noise = found.matrix, now
    if ahead:
        zero, one = torch.zeros_like(now), torch.eye(problem.dim, dtype=torch.float64)
        matrix = torch.cat([torch.cat([matrix, now], -1), torch.cat([zero, zero], -1)])
        noise = torch.cat([ahead[0], one])
    covariance = solve_discrete_lyapunov(matrix.numpy(), (noise @ noise.T).numpy())
    return torch.from_numpy(covariance[: problem.dim, : problem.dim])


@pytest.mark.parametrize("step_size", [0.01, 0.3, 0.6])
def test_euler_maruyama_widens_a_quadratic_as_the_closed_form_says(step_size):
    """⟨θθᵀ⟩ = T K⁻¹ (1 − hK/2)⁻¹."""
    found = stationary_covariance(fo.EulerMaruyama(), COUPLED, step_size)
    identity = torch.eye(2, dtype=torch.float64)
    expected = TEMPERATURE * torch.linalg.inv(COUPLED @ (identity - step_size / 2 * COUPLED))
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("step_size", [0.01, 0.3, 0.6])
def test_leimkuhler_and_matthews_sample_every_quadratic_exactly(step_size):
    found = stationary_covariance(fo.LeimkuhlerMatthews(), COUPLED, step_size)
    assert_close(found, TEMPERATURE * torch.linalg.inv(COUPLED), rtol=0, atol=1e-12)


def test_leimkuhler_and_matthews_make_the_steps_of_their_paper():
    """θ⁺ = θ − hk θ + √(2hT)(ξ + ξ⁺)/2, where each ξ⁺ is the next step's ξ."""
    steps, step_size, curvature = 20, 0.1, 1.7
    flow, problem = overdamped(), fo.problems.quadratic([curvature])
    start = torch.tensor([[0.4], [-0.8]], dtype=torch.float64)

    def ends(scheme):
        settings = {"step_size": step_size, "steps": steps, "record": {"position": 1}, "seed": 3}
        return fo.integrate(flow, scheme, problem, start, **settings).records["position"][..., 0]

    theta = ends(fo.EulerMaruyama())
    size, decay = math.sqrt(2 * TEMPERATURE * step_size), 1 - step_size * curvature
    normals = (theta[1:] - decay * theta[:-1]) / size
    expected, here = [], start[:, 0]
    for now, following in pairwise(normals):
        here = decay * here + size * (now + following) / 2
        expected.append(here)
    # Each scheme draws the normal of a step by the same key.
    found = ends(fo.LeimkuhlerMatthews())[1:-1]
    assert_close(found, torch.stack(expected), rtol=0, atol=1e-13)


def slope(errors):
    """Order of errors at h, h/2 and h/4, extrapolated to h = 0."""
    first, second = (math.log2(abs(a / b)) for a, b in pairwise(errors))
    return 2 * second - first


@pytest.mark.parametrize("scheme", [fo.EulerMaruyama(), fo.LeimkuhlerMatthews()], ids=repr)
def test_averages_at_a_fixed_time_have_weak_order_one(scheme):
    """Mean and variance of an Ornstein–Uhlenbeck process at time one."""
    curvature, start, errors = 1.3, 0.9, []
    mean = start * math.exp(-curvature)
    variance = -TEMPERATURE / curvature * math.expm1(-2 * curvature)
    for steps in (32, 64, 128):
        found = affine_map(overdamped(), scheme, fo.problems.quadratic([curvature]), 1.0 / steps)
        decay, kicks = found.matrix.item(), found.noise[0].numpy()
        weights = numpy.zeros(steps + 1)
        for step in range(steps):
            weights[step : step + len(kicks)] += decay ** (steps - 1 - step) * kicks
        errors.append(math.hypot(start * decay**steps - mean, weights @ weights - variance))
    assert abs(slope(errors) - scheme.order(overdamped())) < 0.1


DOUBLE_WELL = Loss(lambda theta: ((theta**2 - 1) ** 2).sum(-1), dim=1)
# ∫θ² exp(−L/T) / ∫exp(−L/T) at T = 1.
SQUARE = 0.832745487
NODES, REACH = 90, 3.2


def equilibrium_square(scheme, step_size):
    """⟨θ²⟩ of a scheme's chain, by its transfer operator on polynomials.

    What is known before a step is y = θ − cξ, with the share cξ of the kick that this step's
    normal had in the last one; for Euler–Maruyama c = 0.
    """
    shared = math.sqrt(step_size / 2) if isinstance(scheme, fo.LeimkuhlerMatthews) else 0.0
    points = REACH * numpy.cos(numpy.pi * (numpy.arange(NODES) + 0.5) / NODES)
    normals, weights = numpy.polynomial.hermite_e.hermegauss(40)
    y, now = (torch.from_numpy(x.ravel()) for x in numpy.meshgrid(points, normals, indexing="ij"))
    theta = y + shared * now
    draws = [(now,), (torch.zeros_like(now),)]
    state = state_of({"theta": theta[:, None]})
    end = one_step(overdamped(1.0), scheme, DOUBLE_WELL, state, step_size, GivenNormals(draws))
    landed = end.position[0].numpy().clip(-REACH, REACH)
    basis = BarycentricInterpolator(points, numpy.eye(NODES))(landed)
    transfer = numpy.einsum("yxn,x->yn", basis.reshape(NODES, -1, NODES), weights / weights.sum())
    values, vectors = numpy.linalg.eig(transfer.T)
    invariant = vectors[:, numpy.argmin(abs(values - 1))].real
    squares = (theta**2).numpy().reshape(NODES, -1) @ (weights / weights.sum())
    return invariant @ squares / invariant.sum()


@pytest.mark.parametrize(
    ("scheme", "order"), [(fo.EulerMaruyama(), 1), (fo.LeimkuhlerMatthews(), 2)], ids=repr
)
def test_averages_at_equilibrium_have_the_order_of_the_literature(scheme, order):
    errors = [equilibrium_square(scheme, h) - SQUARE for h in (0.02, 0.01, 0.005)]
    assert abs(slope(errors) - order) < 0.1, errors


def test_noise_is_refused_where_its_two_readings_differ():
    flow = fo.Flow.from_text("A: dtheta/dt = -theta + theta*dW/dt")
    assert flow.noise_kind == "driven"
    for scheme in (fo.EulerMaruyama(), fo.Splitting("A", maps={"A": "euler"})):
        with pytest.raises(fo.CompatibilityError, match="readings differ"):
            scheme.check(flow)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A: dtheta/dt = -g", "none"),
        ("A: dtheta/dt = -g + 2*dW/dt", "additive"),
        ("A: dtheta/dt = -g + exp(-t)*dW/dt", "additive"),
        ("A: dtheta/dt = -g + 1/sqrt(v)*dW/dt\nV: dv/dt = g**2 - v", "undriven"),
        ("A: dtheta/dt = p\nO: dp/dt = -p + theta*dW/dt", "undriven"),
        ("A: dtheta/dt = -g + sqrt(1 + L)*dW/dt", "driven"),
        ("A: dtheta/dt = -g + g*dW/dt", "driven"),
        ("A: dtheta/dt = p\nO: dp/dt = -p + p*dW/dt", "driven"),
        ("A: dtheta/dt = p\nO: dp/dt = -p + sqrt(total(p**2))*dW/dt", "driven"),
        # θ and q are driven by one noise, and the amplitude of one follows the other.
        ("A: dtheta/dt = q*dW/dt\nA: dq/dt = -q + dW/dt", "driven"),
        ("A: dtheta/dt = q*dW1/dt\nA: dq/dt = -q + dW2/dt", "undriven"),
    ],
)
def test_the_kind_of_noise_is_derived(text, kind):
    assert fo.Flow.from_text(text).noise_kind == kind


def test_euler_maruyama_steps_noise_that_depends_on_what_it_does_not_drive():
    """Preconditioned Langevin dynamics: one step by hand."""
    flow = fo.Flow.from_text(
        "A: dtheta/dt = -g/sqrt(v) + sqrt(2*T/sqrt(v))*dW/dt\nV: dv/dt = g**2 - v\nstart v = 1",
        T=0.5,
    )
    normal, step_size = torch.tensor([0.7], dtype=torch.float64), 0.1
    state = state_of({"theta": torch.tensor([[2.0]]).double(), "v": torch.tensor([[4.0]]).double()})
    end = one_step(
        flow, fo.EulerMaruyama(), DOUBLE_WELL, state, step_size, GivenNormals([(normal,)])
    )
    slope_here = 4 * 2.0 * (2.0**2 - 1)
    theta = 2.0 - step_size * slope_here / 2 + math.sqrt(step_size * 2 * 0.5 / 2) * 0.7
    assert end.position[0].item() == pytest.approx(theta, rel=1e-15)
    assert end.variables["v"][0].item() == pytest.approx(4 + 0.1 * (slope_here**2 - 4), rel=1e-15)


@pytest.mark.parametrize(
    ("scheme", "flow", "message"),
    [
        (fo.EulerMaruyama(), fo.flows.heavy_ball(), r"no noise: use Euler\(\)"),
        (fo.Euler(), overdamped(), r"use EulerMaruyama\(\)"),
        (fo.RungeKutta("rk4"), overdamped(), r"use EulerMaruyama\(\)"),
        (fo.LeimkuhlerMatthews(), fo.flows.gradient_flow(), "overdamped flows"),
        (
            fo.LeimkuhlerMatthews(),
            fo.flows.langevin(friction=1.0, temperature=1.0),
            r"variables \['theta', 'p'\] and additive noise",
        ),
    ],
)
def test_a_flow_that_a_scheme_can_not_step_is_refused(scheme, flow, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        scheme.check(flow)


def test_a_control_that_rejects_refuses_noise():
    with pytest.raises(fo.CompatibilityError, match="Brownian path"):
        fo.ErrorControl().check(overdamped(), fo.EulerMaruyama())
