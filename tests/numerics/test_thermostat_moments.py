"""Moments of adaptive Langevin dynamics, exactly: of the equation, and of words at rest."""

import math

import pytest
import sympy
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.symbolic.language import g, p, symbol, theta
from tests.reference.affine import AffineMap
from tests.reference.states import GivenNormals, flat, one_step, state_of

TEMPERATURE, STEP_SIZE, CURVATURE, NOISE = 0.3, 0.5, 1.7, 0.4
PUBLISHED = "BAE(CD)EAB"


def test_the_equation_keeps_the_density_of_the_literature():
    """exp(−(L + p²/2)/T − (ξ − σ²/2T)²/(2εT)) for one coordinate and any loss."""
    equations = fo.flows.adaptive_langevin(temperature=1.0).equations
    names = ("temperature", "driving_noise", "coupling", "xi")
    temperature, noise, coupling, xi = map(symbol, names)
    loss = sympy.Function("L")(theta)
    centre = noise**2 / (2 * temperature)
    exponent = (loss + p**2 / 2) / temperature + (xi - centre) ** 2 / (2 * coupling * temperature)
    density = sympy.exp(-exponent)
    change = 0
    for term in equations.terms:
        for variable, drift in term.drift.items():
            here = drift.replace(fo.symbols.total, lambda x: x).subs(g, loss.diff(theta))
            change -= (here * density).diff(variable)
        for variable in term.diffusion:
            for amplitude in term.amplitudes(variable).values():
                change += (amplitude**2 * density).diff(variable, 2) / 2
    assert sympy.simplify(change / density) == 0


def moments(word, friction):
    """⟨θ²⟩ k/T and ⟨p²⟩/T of a word's chain while the thermostat stands still."""
    flow = fo.flows.adaptive_langevin(temperature=TEMPERATURE, driving_noise=NOISE, coupling=0.0)
    problem = fo.problems.quadratic([CURVATURE])
    draws = word.count("D")
    probes = torch.eye(3 + draws, dtype=torch.float64)
    state = state_of(
        {"p": probes[:, 1:2], "theta": probes[:, 2:3]},
        xi=torch.tensor(friction, dtype=torch.float64),
    )
    normals = GivenNormals([(column,) for column in probes[:, 3:].unbind(-1)])
    end = flat(one_step(flow, fo.Splitting(word), problem, state, STEP_SIZE, normals))
    columns = (end[1:] - end[0])[:, :2].T  # Names stand in order: p, theta, and then xi.
    chain = AffineMap(columns[:, :2], end[0], columns[:, 2:])
    p_squared, theta_squared = chain.stationary_covariance().diag() / TEMPERATURE
    return theta_squared * CURVATURE, p_squared


def test_the_published_word_samples_positions_exactly_where_its_friction_settles():
    found = moments(PUBLISHED, NOISE**2 / (2 * TEMPERATURE))
    expected = torch.tensor([1.0, 1 - STEP_SIZE**2 * CURVATURE / 4], dtype=torch.float64)
    assert_close(torch.stack(found), expected, rtol=0, atol=1e-12)


def test_friction_and_noise_apart_narrow_positions_by_the_cosine_of_the_closed_form():
    """ACDEDCAB settles at hξ = artanh(hσ²/2T), with ⟨θ²⟩ = T/(k cosh hξ)."""
    angle = math.atanh(STEP_SIZE * NOISE**2 / (2 * TEMPERATURE))
    theta_squared, _ = moments("ACDEDCAB", angle / STEP_SIZE)
    assert theta_squared.item() == pytest.approx(1 / math.cosh(angle), abs=1e-12)


@pytest.mark.parametrize("word", [PUBLISHED, "ACDEDCAB"])
def test_the_thermostat_adds_up_how_far_the_temperature_was_off(word):
    """Σ (|p|² − NT) over its moves is (ξ_end − ξ_0)/(hε)."""
    coupling, steps, shares = 0.2, 50, word.count("E")
    flow = fo.flows.adaptive_langevin(
        temperature=TEMPERATURE, driving_noise=NOISE, coupling=coupling
    )
    problem = fo.problems.quadratic([1.0, 4.0])
    start = torch.tensor([1.0, -0.5], dtype=torch.float64)
    seen = []
    kept = flow.apply

    def apply(move, state, *rest):
        if move.letter == "E":
            squares = sum(leaf**2 for leaf in state.variables["p"])
            seen.append((squares - 2 * TEMPERATURE) / shares)
        return kept(move, state, *rest)

    flow.fitted = lambda *_: flow
    flow.apply = apply
    end = fo.integrate(
        flow, fo.Splitting(word), problem, start, step_size=STEP_SIZE, steps=steps
    ).state
    gathered = STEP_SIZE * coupling * torch.stack(seen).sum()
    assert_close(gathered, end.scalars["xi"], rtol=1e-12, atol=0)
