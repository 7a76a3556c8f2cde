"""Energies along flows: their rates against the curves themselves, and against closed forms."""

import pytest
import sympy
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.core.evaluation import Evaluation
from flowopt.registry import FLOWS
from flowopt.symbolic.language import total
from flowopt.symbols import symbol
from tests.reference.solutions import NOISE_FREE, SMOOTH, moving_state, slow_flow, solve
from tests.reference.states import HILLS, evaluation_of, state_of, unflat

START = torch.tensor([0.8, 0.6], dtype=torch.float64)
SPACING = 2e-3
# Fourth-order central difference.
STENCIL = torch.tensor([1, -8, 0, 8, -1], dtype=torch.float64) / (12 * SPACING)
ALL = {name: FLOWS[name].build() for name in NOISE_FREE}
EVERY = [(name, energy) for name, flow in ALL.items() for energy in flow.energies]
CONSERVED = [pair for pair in EVERY if ALL[pair[0]].energy_rate(pair[1]) == 0]
ENERGIES = [pair for pair in EVERY if pair[0] in SMOOTH and pair not in CONSERVED]


def curve(name):
    """States of a flow at equal distances in time, as one batch, and their evaluations."""
    flow = slow_flow(name)
    state = moving_state(flow, FLOWS[name].words[0], HILLS, START)
    times = [SPACING * i for i in range(400)]
    elapsed = torch.tensor(times, dtype=torch.float64)
    points = unflat(solve(flow, HILLS, state, times), state, elapsed)
    return flow, points, evaluation_of(HILLS, points.position, flow)


@pytest.mark.parametrize(("name", "energy"), ENERGIES)
def test_an_energy_changes_along_its_flow_at_its_rate(name, energy):
    flow, states, evaluation = curve(name)
    measured = flow.energy(energy)
    values = measured.value(states, evaluation).unfold(0, len(STENCIL), 1) @ STENCIL
    rates = measured.rate(states, evaluation)[2:-2]
    assert (values - rates).abs().max() <= 1e-6 * rates.abs().max()


@pytest.mark.parametrize("name", [name for name, _ in ENERGIES])
def test_an_energy_never_rises_along_its_flow(name):
    flow, states, evaluation = curve(name)
    for energy in flow.energies:
        assert (flow.energy(energy).rate(states, evaluation) <= 0).all()


@pytest.mark.parametrize(("name", "energy"), CONSERVED)
def test_an_energy_of_rate_zero_stays_what_it_is(name, energy):
    flow, states, evaluation = curve(name)
    values = flow.energy(energy).value(states, evaluation)
    assert (values - values[0]).abs().max() <= 1e-12 * values[0].abs()


def moved(state, tangent, distance):
    variables = {
        name: tuple(x + distance * d for x, d in zip(leaves, tangent.variables[name], strict=True))
        for name, leaves in state.variables.items()
    }
    scalars = {name: x + distance * tangent.scalars[name] for name, x in state.scalars.items()}
    return fo.State(variables, scalars, state.time + distance, state.step)


@pytest.mark.parametrize(("name", "energy"), [pair for pair in EVERY if pair not in CONSERVED])
def test_the_rate_of_an_energy_is_its_slope_along_the_drift(name, energy):
    flow = slow_flow(name)
    generator = torch.Generator().manual_seed(2)
    starts = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    state = moving_state(flow, FLOWS[name].words[0], HILLS, starts)
    here = evaluation_of(HILLS, state.position, flow)
    tangent, measured = flow.drift(state, here), flow.energy(energy)
    ends = [moved(state, tangent, distance) for distance in (-1e-6, 1e-6)]
    low, high = (measured.value(end, evaluation_of(HILLS, end.position)) for end in ends)
    rates = measured.rate(state, here)
    assert_close((high - low) / 2e-6, rates, rtol=1e-6, atol=1e-6 * rates.abs().max().item())
    assert (rates <= 0).all()


p, m, g, v = map(symbol, ("p", "m", "g", "v"))
friction, temperature, rate, lookahead, eps = map(
    symbol, ("friction", "temperature", "rate", "lookahead", "eps")
)

power, threshold, xi, psi, damping, driving_noise = map(
    symbol, ("power", "threshold", "xi", "psi", "damping", "driving_noise")
)
restoring = (friction - 1 / damping) * symbol("theta") + psi / damping
NORM = sympy.sqrt(total(g**2))


@pytest.mark.parametrize(
    ("name", "energy", "expected"),
    [
        ("gradient_flow", "loss", -(g**2)),
        ("sign_gradient", "loss", -g * sympy.sign(g)),
        ("normalised_gradient", "loss", -(g**2) / (NORM + eps)),
        ("p_gradient", "loss", -(g**2) / (NORM ** ((power - 2) / (power - 1)) + eps)),
        ("clipped_gradient", "loss", -sympy.Min(1, threshold / NORM) * g**2),
        ("nose_hoover", "extended", 0),
        ("adaptive_langevin", "extended", driving_noise**2 / 2 - temperature * xi),
        ("inna", "lyapunov", -friction * (restoring + damping * g) ** 2 - damping * g**2),
        ("heavy_ball", "mechanical", -friction * p**2),
        ("langevin", "mechanical", friction * (temperature - p**2)),
        ("momentum_ema", "mechanical", -rate * m**2),
        ("nesterov", "mechanical", -friction * p**2 - lookahead * g**2),
        ("rmsprop", "loss", -(g**2) / (sympy.sqrt(v) + eps)),
        ("adagrad", "loss", -(g**2) / (sympy.sqrt(v) + eps)),
    ],
)
def test_an_energy_has_the_rate_of_the_literature(name, energy, expected):
    assert sympy.simplify(FLOWS[name].build().energy_rate(energy) - expected) == 0


def adam_states(count, a, b, times):
    """Random states of Adam whose bias corrections belong to their times."""
    generator = torch.Generator().manual_seed(0)
    theta, m, v = torch.randn(3, count, 2, generator=generator, dtype=torch.float64)
    return state_of(
        {"theta": theta, "m": m, "v": v**2},
        u_m=-torch.expm1(-a * times),
        u_v=-torch.expm1(-b * times),
    )


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_adam_loses_its_energy_at_the_published_rate(eps):
    """V = a L + Σ f m²/(2D), with D = √v + eps √u_v and f = √u_v/u_m, changes at

    −f Σ (m²/D)(a − (b/4)√v/D − f'/(2f)) − (b f/4) Σ m²g²/(√v D²) − (f/2) eps (√u_v)' Σ m²/D².
    """
    a, b = 2.0, 0.7
    times = torch.linspace(0.1, 4.0, 50, dtype=torch.float64)
    state = adam_states(50, a, b, times)
    evaluation = evaluation_of(HILLS, state.position)
    flow = fo.flows.adam(momentum_rate=a, square_rate=b, eps=eps)
    m, v = (torch.stack(state.variables[name]) for name in "mv")
    g = torch.stack(evaluation.gradient)
    u_v = state.scalars["u_v"]
    f = torch.sqrt(u_v) / state.scalars["u_m"]
    slope = b / (2 * torch.expm1(b * times)) - a / torch.expm1(a * times)
    D = torch.sqrt(v) + eps * torch.sqrt(u_v)
    bracket = a - b / 4 * torch.sqrt(v) / D - slope / 2
    rate = -f * m**2 / D * bracket - b * f / 4 * m**2 * g**2 / (torch.sqrt(v) * D**2)
    rate -= f / 2 * m**2 / D**2 * eps * b * (1 - u_v) / (2 * torch.sqrt(u_v))
    assert_close(
        flow.energy("lyapunov").rate(state, evaluation), rate.sum(0), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(("ratio", "never"), [(0.01, True), (4.0, True), (5.0, False)])
def test_adam_never_gains_energy_where_b_is_at_most_four_a(ratio, never):
    a = 1.0
    times = torch.logspace(-4, 3, 300, dtype=torch.float64)
    state = adam_states(300, a, ratio * a, times)
    # Where the gradient vanishes, nothing but the bracket of the rate decides.
    calm = Evaluation(
        torch.zeros(300, dtype=torch.float64), tuple(torch.zeros_like(x) for x in state.position)
    )
    flow = fo.flows.adam(momentum_rate=a, square_rate=ratio * a, eps=0.0)
    assert (flow.energy("lyapunov").rate(state, calm) <= 1e-14).all() == never


def test_an_energy_may_depend_on_time():
    flow = fo.Flow.from_text("A: dtheta/dt = p\nB: dp/dt = -g\nenergy e: t**2*L + exp(t)*p**2/2")
    t, exponential = symbol("t"), sympy.exp(symbol("t"))
    elementwise = t**2 * g * p - exponential * p * g + exponential * p**2 / 2
    assert sympy.simplify(flow.energy_rate("e") - elementwise - 2 * t * symbol("L")) == 0


def test_an_energy_of_a_batch_is_that_of_each_member():
    flow = fo.flows.heavy_ball(friction=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    theta = torch.tensor([[0.3, 1.0], [2.0, -1.0], [0.0, 0.5]], dtype=torch.float64)
    p = torch.tensor([[1.0, 2.0], [0.0, 3.0], [-1.0, 1.0]], dtype=torch.float64)
    state = state_of({"theta": theta, "p": p})
    evaluation = evaluation_of(HILLS, state.position)
    energy = flow.energy("mechanical")
    assert_close(
        energy.value(state, evaluation), HILLS.loss(theta) + (p**2).sum(-1) / 2, rtol=1e-15, atol=0
    )
    expected = -torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) * (p**2).sum(-1)
    assert_close(energy.rate(state, evaluation), expected, rtol=1e-15, atol=0)


def test_an_energy_has_float64_values_in_float32_runs():
    flow = fo.flows.heavy_ball()
    state = state_of({"theta": torch.ones(4, 2), "p": torch.ones(4, 2)})
    evaluation = evaluation_of(HILLS, state.position)
    assert flow.energy("mechanical").value(state, evaluation).dtype == torch.float64


def test_weight_decay_enters_the_energy_of_a_method():
    energy = fo.classic.sgd(lr=0.1, weight_decay=0.4).flow.equations.energies["loss"]
    penalty = symbol("weight_decay") * symbol("theta") ** 2 / 2
    assert sympy.simplify(energy - symbol("L") - penalty) == 0
