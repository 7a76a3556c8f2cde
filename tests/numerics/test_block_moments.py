"""Blocks together: stationary moments, energies, measured order, and other people's solvers."""

import math
from itertools import pairwise

import numpy
import pytest
import torch
import torchdiffeq
import torchsde
from scipy.linalg import solve_continuous_lyapunov

import flowopt as fo
from flowopt.core.oracle import LossOracle
from tests.reference.affine import affine_map
from tests.reference.pairs import fits
from tests.reference.states import HILLS, columns, flat

INFINITE = math.inf
STIFFNESS = [[2.0, 1.0], [1.0, 2.0]]
COUPLED = fo.problems.quadratic(STIFFNESS)
K = torch.tensor(STIFFNESS, dtype=torch.float64)
START = torch.tensor([0.8, 0.6], dtype=torch.float64)
PARTITION = fo.Partition(COUPLED, {"first": 0, "second": 1})


def blocks(first, second, **settings):
    return fo.PartitionedFlow(PARTITION, {"first": first, "second": second}, **settings)


def two_langevins(frictions, temperatures):
    pairs = zip(frictions, temperatures, strict=True)
    return blocks(*(fo.flows.langevin(friction=c, temperature=t) for c, t in pairs))


def covariance(flow, word, h):
    """⟨zzᵀ⟩ of (p₁, p₂, θ₁, θ₂), from the affine map that a step is."""
    return affine_map(flow, fo.Splitting(word), COUPLED, h).stationary_covariance()


@pytest.mark.parametrize("frictions", [(1.0, 1.0), (1.0, 5.0), (1.0, INFINITE), (INFINITE,) * 2])
def test_langevin_blocks_of_one_temperature_sample_a_quadratic_exactly(frictions):
    temperature, h = 0.7, 0.5
    found = covariance(two_langevins(frictions, (temperature,) * 2), "BAOAB", h)
    expected = torch.block_diag(
        temperature * (torch.eye(2) - h**2 / 4 * K), temperature * torch.linalg.inv(K)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_langevin_blocks_of_two_temperatures_have_the_stationary_state_of_their_equation():
    frictions, temperatures = numpy.array([1.0, 5.0]), numpy.array([1.0, 0.5])
    drift = numpy.block([[-numpy.diag(frictions), -K.numpy()], [numpy.eye(2), numpy.zeros((2, 2))]])
    noise = numpy.diag([*(2 * frictions * temperatures), 0.0, 0.0])
    limit = solve_continuous_lyapunov(drift, -noise)
    assert limit[2, 2] == pytest.approx(0.57828, abs=5e-6)
    flow = two_langevins(frictions, temperatures)
    errors = [numpy.abs(covariance(flow, "BAOAB", h).numpy() - limit).max() for h in (0.02, 0.01)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.01)


def test_lol_of_two_temperatures_approaches_its_adiabatic_limit():
    flow = two_langevins((1.0, INFINITE), (1.0, 0.5))
    found = covariance(flow, "BAOAB", 0.1)[2:, 2:]
    values = [found[1, 1].item(), found[0, 1].item(), found[0, 0].item()]
    assert values == pytest.approx([0.33759, -0.17460, 0.58146], abs=5e-6)
    near = covariance(flow, "BAOAB", 1e-3)[2:, 2:]
    limit = torch.tensor([[7 / 12, -1 / 6], [-1 / 6, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(near, limit, rtol=0, atol=1e-4)


THERMOSTATS = blocks(
    fo.flows.nose_hoover(temperature=0.2),
    fo.flows.heavy_ball(friction=0.5),
    letters={"first": {"O": "CEC"}},
)
MIXED = blocks(
    fo.flows.heavy_ball(friction=0.7),
    fo.flows.gradient_flow(),
    letters={"second": {"B": "A"}},
    pace={"second": 0.3},
)


def moving(flow, problem=HILLS):
    """A state whose momenta are not zero."""
    word = "BAO" if "O" in flow.letters else "BA"
    return fo.integrate(
        flow, fo.Splitting(word), problem, START, step_size=0.1, steps=3, compile=False
    ).state


def test_the_energy_is_the_loss_and_what_each_block_has_besides():
    state = moving(MIXED)
    evaluation = LossOracle(HILLS, torch.float64, START.device).evaluate(state.position, None)
    energy, (momentum,) = MIXED.energy("joint"), state.variables["first.p"]
    expected = evaluation.loss + momentum**2 / 2
    torch.testing.assert_close(energy.value(state, evaluation), expected, rtol=1e-15, atol=0)
    rate = -0.7 * momentum**2 - 0.3 * evaluation.gradient[1] ** 2
    torch.testing.assert_close(energy.rate(state, evaluation), rate, rtol=1e-14, atol=0)


def test_energies_that_all_blocks_have_keep_their_name():
    flow = two_langevins((1.0, 2.0), (0.1, 0.2))
    assert flow.energies == ("mechanical",)
    state = moving(flow)
    evaluation = LossOracle(HILLS, torch.float64, START.device).evaluate(state.position, None)
    p, q = (state.variables[f"{name}.p"][0] for name in ("first", "second"))
    expected = (0.1 - p**2) + 2.0 * (0.2 - q**2)
    found = flow.energy("mechanical").rate(state, evaluation)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    with pytest.raises(
        fo.DefinitionError, match=r"no joint energy 'loss': it has \['mechanical'\]"
    ):
        flow.energy("loss")


def test_blocks_of_a_thermostat_conserve_nothing_that_friction_takes():
    conserving = blocks(*[fo.flows.nose_hoover(temperature=0.2)] * 2)
    assert conserving.energy("extended").conserved
    assert not THERMOSTATS.energy("joint").conserved


@pytest.mark.parametrize(
    ("flow", "word", "order"),
    [
        (THERMOSTATS, "BAOAB", 2.0),
        (blocks(*[fo.flows.heavy_ball()] * 2, letters={"second": {"A": "AO"}}), "OABAO", 1.0),
        (MIXED, "BAOAB", 1.0),
    ],
)
def test_a_word_of_blocks_has_the_order_that_it_claims(flow, word, order):
    scheme = fo.Splitting(word)
    assert scheme.order(flow) == order
    state = moving(flow)
    precise = fo.ErrorControl(rtol=1e-12, atol=1e-14)
    dopri = fo.RungeKutta("dopri5")
    exact = flat(fo.integrate(flow, dopri, HILLS, state, control=precise, duration=1.0).state)
    errors = []
    for steps in (32, 64, 128):
        end = fo.integrate(flow, scheme, HILLS, state, step_size=1 / steps, duration=1.0).state
        errors.append((flat(end) - exact).abs().max().item())
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert 2 * slopes[1] - slopes[0] == pytest.approx(order, abs=0.1)


def test_letters_that_move_theta_in_one_block_and_take_the_gradient_in_another_are_frozen():
    crossed = blocks(*[fo.flows.heavy_ball()] * 2, letters={"second": {"A": "B", "B": "A"}})
    assert [crossed.kind(letter) for letter in "ABO"] == ["frozen", "frozen", "exact"]
    assert THERMOSTATS.kind("O") == "symmetric"
    assert blocks(*[fo.flows.langevin(temperature=1.0)] * 2).kind("B", "euler") == "euler"


def test_torchdiffeq_follows_blocks_as_runge_kutta_does():
    system = fo.adapters.to_torchdiffeq(MIXED, HILLS)
    start = system.pack(START)
    times = torch.linspace(0.0, 0.5, 6, dtype=torch.float64)
    theirs = system.position(torchdiffeq.odeint(system, start, times, method="midpoint")[-1])
    ours = fo.integrate(MIXED, fo.RungeKutta("midpoint"), HILLS, START, step_size=0.1, steps=5)
    torch.testing.assert_close(theirs, ours.position, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "flow",
    [
        two_langevins((1.0, 2.0), (0.1, 0.2)),
        blocks(*[fo.flows.overdamped_langevin(temperature=0.2)] * 2, pace={"second": 0.3}),
    ],
    ids=["momenta", "positions"],
)
def test_torchsde_follows_blocks_on_one_brownian_path(flow):
    system = fo.adapters.to_torchsde(flow, HILLS)
    packed = system.pack(START[None])
    path = system.path(packed, 0.0, 1.0, seed=4)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = torchsde.sdeint(system, packed, times, bm=path, dt=0.1, method="euler")[-1]
    scheme, noise = fo.EulerMaruyama(), system.noise(path)
    ours = fo.integrate(
        flow, scheme, HILLS, START[None], step_size=0.1, steps=10, noise=noise
    ).position
    torch.testing.assert_close(system.position(theirs), ours, rtol=0, atol=1e-12)


def test_implicit_steps_of_blocks_solve_their_equation():
    scheme, h = fo.LinearlyImplicitEuler(), 0.1
    assert fits(MIXED, scheme)
    found = fo.integrate(MIXED, scheme, COUPLED, START, step_size=h, steps=1, compile=False).state
    # z' = Mz: (1 − hM) z₁ = z₀ for z = (p₁, θ₁, θ₂).
    (a, b), (_, c) = STIFFNESS
    field = [[-0.7, -a, -b], [1.0, 0.0, 0.0], [0.0, -0.3 * b, -0.3 * c]]
    matrix = torch.eye(3).double() - h * torch.tensor(field, dtype=torch.float64)
    before = torch.stack([torch.zeros(()).double(), *columns(START)])
    torch.testing.assert_close(flat(found), torch.linalg.solve(matrix, before), rtol=1e-13, atol=0)
