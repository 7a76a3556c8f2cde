"""Moments that Langevin words keep on quadratics, to rounding and without sampling."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

import flowopt as fo
from tests.reference.affine import AffineMap, affine_map
from tests.reference.states import GivenNormals, one_step, state_of

FRICTIONS = [0.05, 0.7, 5.0, 200.0, math.inf]
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


COUPLED = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
EACH_ITS_OWN = [(0.7, 0.7), (0.05, 5.0), (1.0, math.inf), (math.inf, math.inf)]


def map_of_two_frictions(word, frictions):
    """Of p₁, p₂, θ₁ and θ₂, where each coordinate has a friction of its own."""
    problem = fo.problems.quadratic(COUPLED)
    partition = fo.Partition(problem, {"first": 0, "second": 1})
    flows = [fo.flows.langevin(friction=c, temperature=TEMPERATURE) for c in frictions]
    flow = fo.PartitionedFlow(partition, dict(zip(("first", "second"), flows, strict=True)))
    return affine_map(flow, fo.Splitting(word), problem, STEP_SIZE)


def covariances(word):
    """⟨ppᵀ⟩, ⟨θθᵀ⟩ and ⟨pθᵀ⟩ in units of the temperature, whatever the frictions."""
    one, inverse = torch.eye(2, dtype=torch.float64), torch.linalg.inv(COUPLED)
    narrow = one - STEP_SIZE**2 / 4 * COUPLED
    wide = torch.linalg.inv(narrow)
    return {
        "BAOAB": (narrow, inverse, 0 * one),
        "BAOA": (one, inverse, STEP_SIZE / 2 * one),
        "ABOBA": (wide, inverse, 0 * one),
        "OBABO": (one, inverse @ wide, 0 * one),
    }[word]


@pytest.mark.parametrize("frictions", EACH_ITS_OWN)
@pytest.mark.parametrize("word", ["BAOAB", "BAOA", "ABOBA", "OBABO"])
def test_coordinates_with_frictions_of_their_own_have_the_moments_of_the_closed_form(
    word, frictions
):
    found = map_of_two_frictions(word, frictions).stationary_covariance() / TEMPERATURE
    momenta, positions, products = covariances(word)
    expected = torch.cat([torch.cat([momenta, products], 1), torch.cat([products, positions], 1)])
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frictions", EACH_ITS_OWN)
def test_oba_with_frictions_of_their_own_is_the_map_that_its_letters_spell(frictions):
    decay = torch.exp(-STEP_SIZE * torch.tensor(frictions, dtype=torch.float64))
    one, none = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    friction = torch.block_diag(decay.diag(), one)
    kick = torch.cat([torch.cat([one, -STEP_SIZE * COUPLED], 1), torch.cat([none, one], 1)])
    drift = torch.cat([torch.cat([one, none], 1), torch.cat([STEP_SIZE * one, one], 1)])
    noise = drift @ kick[:, :2] * torch.sqrt(TEMPERATURE * (1 - decay**2))
    expected = AffineMap(drift @ kick @ friction, torch.zeros(4), noise).stationary_covariance()
    found = map_of_two_frictions("OBA", frictions).stationary_covariance()
    assert_close(found, expected, rtol=0, atol=1e-12)


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
