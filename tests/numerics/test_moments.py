"""Moments that Langevin words keep on quadratics, to rounding and without sampling."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

import flowopt as fo
from tests.reference.affine import affine_map
from tests.reference.states import GivenNormals, one_step, state_of

FRICTIONS = [0.7, 5.0, math.inf]
CURVATURE, TEMPERATURE, STEP_SIZE = 1.7, 0.3, 0.5
DOUBLE_WELL = fo.problems.double_well()
WORDS = ["BAOAB", "BAOA", "AOAB", "ABOBA", "OBABO", "BABO", "OABAO", "BAO", "AOBA", "OBA"]


def langevin_map(word, friction, problem, *, temperature=TEMPERATURE, step_size=STEP_SIZE):
    flow = fo.flows.langevin(friction=friction, temperature=temperature)
    return affine_map(flow, fo.Splitting(word), problem, step_size)


def closed_form(word, decay):
    """⟨θ²⟩ k/T, ⟨p²⟩/T and ⟨θp⟩/T of an oscillator with curvature k, for decay = exp(−γh)."""
    x = STEP_SIZE**2 * CURVATURE
    below = 2 * (1 + decay) - x
    return {
        "BAOAB": (1, 1 - x / 4, 0),
        "BAOA": (1, 1, STEP_SIZE / 2),
        "AOAB": (1, 1, -STEP_SIZE / 2),
        "ABOBA": (1, 1 / (1 - x / 4), 0),
        "OBABO": (1 / (1 - x / 4), 1, 0),
        "BABO": (1 / (1 - x / 4), 1, 0),
        "OABAO": (1 - x / 4, 1, 0),
        "BAO": (
            (1 + decay) ** 2 / below,
            (1 + decay) * (2 - (1 - decay) * x) / below,
            decay * STEP_SIZE * (1 + decay) / below,
        ),
        "AOBA": ((1 + decay) / 2, 2 * (1 + decay) / below, 0),
        "OBA": (
            (1 + decay) ** 2 / below,
            2 * (1 + decay) / below,
            STEP_SIZE * (1 + decay) / below,
        ),
    }[word]


@pytest.mark.parametrize("friction", FRICTIONS)
@pytest.mark.parametrize("word", WORDS)
def test_an_oscillator_has_the_moments_of_the_closed_form(word, friction):
    chain = langevin_map(word, friction, fo.problems.quadratic([CURVATURE]))
    (p_squared, product), (_, theta_squared) = chain.stationary_covariance() / TEMPERATURE
    decay = math.exp(-friction * STEP_SIZE)
    expected = torch.tensor(closed_form(word, decay), dtype=torch.float64)
    measured = [theta_squared * CURVATURE, p_squared, product]
    assert_close(torch.stack(measured), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("friction", FRICTIONS)
def test_baoab_samples_the_positions_of_every_quadratic_exactly(friction):
    curvatures = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    chain = langevin_map("BAOAB", friction, fo.problems.quadratic(curvatures))
    covariance = chain.stationary_covariance() / TEMPERATURE
    identity = torch.eye(2, dtype=torch.float64)
    p_squared = identity - STEP_SIZE**2 / 4 * curvatures
    expected = torch.block_diag(p_squared, torch.linalg.inv(curvatures))
    assert_close(covariance, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", WORDS)
def test_without_friction_a_word_has_no_noise_and_keeps_volume(word):
    chain = langevin_map(word, 0.0, fo.problems.quadratic([CURVATURE]))
    assert not chain.noise.any()
    assert_close(torch.linalg.det(chain.matrix).item(), 1.0, rtol=1e-14, atol=0)


def test_infinite_friction_redraws_the_momentum():
    chain = langevin_map("BAO", math.inf, fo.problems.quadratic([CURVATURE]))
    assert not chain.matrix[0].any()
    assert chain.noise[0].item() == math.sqrt(TEMPERATURE)


def test_infinite_friction_turns_baoab_into_the_method_of_leimkuhler_and_matthews():
    """θ⁺ = θ − δ∇L + √(2δT) (ξ + ξ⁺)/2 at δ = h²/2, on a loss that is not quadratic."""
    flow = fo.flows.langevin(friction=math.inf, temperature=TEMPERATURE)
    scheme = fo.Splitting("BAOAB")
    normals = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.5], dtype=torch.float64)
    kicks = normals * math.sqrt(TEMPERATURE)
    theta = torch.tensor([0.7], dtype=torch.float64)
    p = kicks[0] - STEP_SIZE / 2 * DOUBLE_WELL.gradient(theta)
    state = state_of({"theta": theta, "p": p})
    for old, new in pairwise(kicks):
        theta = theta - STEP_SIZE**2 / 2 * DOUBLE_WELL.gradient(theta)
        theta = theta + STEP_SIZE / 2 * (old + new)
        noise = GivenNormals([(new / math.sqrt(TEMPERATURE),)])
        state = one_step(flow, scheme, DOUBLE_WELL, state, STEP_SIZE, noise)
    assert_close(torch.stack(state.position, -1), theta, rtol=1e-13, atol=0)


def test_without_temperature_langevin_is_the_heavy_ball():
    problem = fo.problems.quadratic([CURVATURE])
    cold = langevin_map("BAOAB", 0.7, problem, temperature=0.0)
    ball = affine_map(fo.flows.heavy_ball(friction=0.7), fo.Splitting("BAOAB"), problem, STEP_SIZE)
    assert torch.equal(cold.matrix, ball.matrix)
    assert not cold.noise.any()
