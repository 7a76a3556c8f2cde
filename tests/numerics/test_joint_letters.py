"""Letters that move jointly: matrix exponentials and their noise, without loss of digits."""

import math

import mpmath
import numpy
import pytest
import torch
from scipy.linalg import expm, solve_discrete_lyapunov
from torch.testing import assert_close

import flowopt as fo
from flowopt.symbolic.printing.torch_code import evaluate_phi
from tests.reference.affine import affine_map

FREE = """
A: dtheta/dt = p
O: dp/dt = -friction*p + sqrt(2*friction*temperature)*dW/dt
"""
CHAIN = """
A: dtheta/dt = 0.7*p
C: dp/dt = 1.3*q - rate*p + 0.2
O: dq/dt = -{multiple}*rate*q + 2*dW/dt
"""
POINT = fo.problems.quadratic([1.0])


def reference(drift, spread, time):
    """Matrix and covariance of x' = Mx + σ dW over a time, to fifty digits (Van Loan 1978)."""
    with mpmath.workdps(50):
        drift, spread = mpmath.matrix(drift), mpmath.matrix(spread)
        size = drift.rows
        block = mpmath.zeros(2 * size)
        block[:size, :size] = -drift
        block[:size, size:] = spread * spread.T
        block[size:, size:] = drift.T
        whole = mpmath.expm(block * mpmath.mpf(time), method="taylor")
        matrix = whole[size:, size:].T
        covariance = matrix * whole[:size, size:]
    return numpy.array(matrix.tolist(), float), numpy.array(covariance.tolist(), float)


def free_particle(friction):
    """M and σ of (p, θ) at temperature 1/2."""
    return [[-friction, 0], [1, 0]], [[mpmath.sqrt(mpmath.mpf(friction)), 0], [0, 0]]


@pytest.mark.parametrize("friction", [1e-12, 1e-6, 1e-2, 0.49, 0.51, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("time", [1e-9, 1e-3, 1.0])
def test_position_and_momentum_move_as_the_matrix_exponential_says(friction, time):
    flow = fo.Flow.from_text(FREE, friction=friction, temperature=0.5)
    found = affine_map(flow, fo.Splitting("(AO)"), POINT, time)
    matrix, covariance = reference(*free_particle(friction), time)
    assert_close(found.matrix.numpy(), matrix, rtol=1e-14, atol=0)
    # Every entry keeps its digits, that of θθ too, which is a factor h² smaller than that of pp.
    noise = found.noise.numpy()
    assert_close(noise @ noise.T, covariance, rtol=1e-13, atol=0)


@pytest.mark.parametrize("multiple", ["0", "0.5", "1", "2"])
def test_a_chain_of_three_moves_as_the_matrix_exponential_says(multiple):
    flow, rate, time = fo.Flow.from_text(CHAIN.format(multiple=multiple), rate=0.9), 0.9, 0.6
    drift = [[-rate, 1.3, 0.0], [0.0, -float(multiple) * rate, 0.0], [0.7, 0.0, 0.0]]
    found = affine_map(flow, fo.Splitting("(ACO)"), POINT, time)
    matrix, covariance = reference(drift, [[0, 0, 0], [0, 2, 0], [0, 0, 0]], time)
    assert_close(found.matrix.numpy(), matrix, rtol=1e-13, atol=1e-16)
    noise = found.noise.numpy()
    assert_close(noise @ noise.T, covariance, rtol=1e-12, atol=0)
    # The constant source: the last column of the exponential of the system with a 1 beside it.
    whole = numpy.block([[numpy.array(drift), numpy.array([[0.2], [0], [0]])], [numpy.zeros(4)]])
    assert_close(found.offset.numpy(), expm(whole * time)[:3, 3], rtol=1e-13, atol=1e-16)


def test_a_letter_whose_variables_drive_one_another_is_exact_by_itself():
    flow = fo.Flow.from_text(FREE.replace("O:", "A:"), friction=0.8, temperature=0.5)
    assert flow.kind("A") == "exact"
    alone = affine_map(flow, fo.Splitting("A"), POINT, 0.3)
    free = fo.Flow.from_text(FREE, friction=0.8, temperature=0.5)
    joint = affine_map(free, fo.Splitting("(AO)"), POINT, 0.3)
    assert torch.equal(alone.matrix, joint.matrix)
    assert torch.equal(alone.noise, joint.noise)
    assert fo.Splitting("(AO)").order(free) == math.inf
    assert flow.kind("A", "frozen") == "frozen"


@pytest.mark.parametrize("setting", ["friction", "temperature", "step_size"])
def test_nothing_divides_by_friction_temperature_or_step_size(setting):
    values = {"friction": 0.8, "temperature": 0.5, "step_size": 0.3, setting: 0.0}
    step_size = values.pop("step_size")
    flow = fo.Flow.from_text(FREE, **values)
    found = affine_map(flow, fo.Splitting("(AO)"), POINT, step_size)
    assert torch.isfinite(found.matrix).all()
    assert not found.noise.any()


@pytest.mark.parametrize("friction", [0.1, 0.8, 20.0])
def test_ubu_on_a_quadratic_has_the_moments_of_its_matrices(friction):
    """U over h/2 by the reference above, B as a kick; the covariance that the product keeps."""
    curvature, step_size = 1.7, 0.5
    flow = fo.flows.langevin(friction=friction, temperature=0.5)
    problem = fo.problems.quadratic([curvature])
    found = affine_map(flow, fo.Splitting("(AO)B(AO)"), problem, step_size)
    half, noise = reference(*free_particle(friction), step_size / 2)
    kick = numpy.array([[1.0, -step_size * curvature], [0.0, 1.0]])
    matrix = half @ kick @ half
    spread = half @ kick @ noise @ kick.T @ half.T + noise
    expected = solve_discrete_lyapunov(matrix, spread)
    assert_close(found.stationary_covariance().numpy(), expected, rtol=0, atol=1e-12)


def test_joint_letters_step_float32_as_float64():
    flow = fo.flows.langevin(friction=1e-4, temperature=0.5)
    start = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    settings = {"step_size": 1e-3, "steps": 10}
    ends = [
        fo.integrate(
            flow, fo.Splitting("(AO)B(AO)"), fo.problems.quadratic([1.0, 2.0]), x, **settings
        )
        for x in (start, start.float())
    ]
    for name, leaves in ends[0].state.variables.items():
        for ours, exact in zip(ends[1].state.variables[name], leaves, strict=True):
            assert_close(ours.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-14), (torch.float32, 5e-6)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_phi_keeps_its_digits(order, dtype, digits):
    sizes = [*(10.0**k for k in range(-20, 2)), 0.249, 0.251, 0.749, 0.751, 1.24, 1.26, 3.0]
    points = [sign * x for x in sizes for sign in (1, -1)] + [-100.0, -1e6]
    z = torch.tensor(points, dtype=dtype)
    with mpmath.workdps(60):
        exact = [
            mpmath.hyp1f1(1, order + 1, mpmath.mpf(float(x))) / mpmath.factorial(order)
            for x in z.double()
        ]
    expected = torch.tensor([float(value) for value in exact], dtype=torch.float64)
    assert_close(evaluate_phi(order, z).double(), expected, rtol=digits, atol=0)
    assert evaluate_phi(order, torch.zeros(1, dtype=dtype)).item() == pytest.approx(
        1 / math.factorial(order), rel=1e-7
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("(AB)O", "letters AB have no joint map"),
        ("(ABO)", "letters ABO have no joint map"),
    ],
)
def test_letters_that_are_not_linear_together_are_refused(word, message):
    flow = fo.flows.langevin(friction=1.0, temperature=1.0)
    with pytest.raises(fo.CompatibilityError, match=message):
        fo.Splitting(word).check(flow)


@pytest.mark.parametrize("word", ["(AA)B", "(AO)BA", "(A)B", "(AO", "A)B", "((AO))", "()A"])
def test_a_word_in_which_parentheses_make_no_sense_is_refused(word):
    with pytest.raises(fo.CompatibilityError, match="jointly"):
        fo.Splitting(word)


def test_a_circle_of_drivers_is_refused():
    flow = fo.Flow.from_text("A: dtheta/dt = p\nB: dp/dt = -theta")
    with pytest.raises(fo.CompatibilityError, match="drive one another in one direction"):
        fo.Splitting("(AB)").check(flow)


def test_noise_of_a_scalar_does_not_move_elements_in_the_same_letter():
    flow = fo.Flow.from_text("scalar u\nA: dtheta/dt = u\nA: du/dt = -u + dW/dt")
    with pytest.raises(fo.CompatibilityError, match="letters of their own"):
        fo.Splitting("A").check(flow)
    fo.Splitting("A", maps={"A": "frozen"}).check(flow)
