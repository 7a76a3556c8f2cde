"""Momenta that begin anew where the loss would rise along them."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from tests.reference.lyapunov import controlled_adam
from tests.reference.states import evaluation_of
from tests.reference.training import small_data, small_network

POLY_TWO = fo.problems.analytic("poly_two")
QUADRATIC = fo.problems.quadratic([1.0, 25.0])
WORD = fo.Splitting("TMVA")
# Learning rate → mean cost in forward passes of Adam where it converges, 4000 starts.
ADAMS_COST = {1e-3: 1255, 0.01: 837, 0.1: 667, 0.3: 567, 1.0: 544}
AFFORDABLE = 2000


def starts(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 3


def controlled(lr, start, scheme=None, **settings):
    flow = fo.flows.adam(momentum_rate=0.1 / lr, square_rate=0.001 / lr)
    control = fo.LyapunovControl(dissipation=0.1, growth=2.0, first_step=0.1 * lr)
    scheme = scheme or fo.Restarted(WORD)
    return fo.integrate(flow, scheme, POLY_TWO, start, control=control, **settings)


def test_steps_of_controlled_adam_are_those_of_the_rule_written_out():
    lr, start = 1.0, starts(2, seed=1)
    found = controlled(lr, start, steps=30, record={"position": 1})
    dropped = 0
    for member, where in enumerate(start):
        settings = {
            "rates": (0.1 / lr, 0.001 / lr),
            "eps": 1e-8,
            "dissipation": 0.1,
            "shrink": 0.5,
            "growth": 2.0,
            "first": 0.1 * lr,
            "steps": 30,
        }
        path, losses = controlled_adam(POLY_TWO, where, restarts=True, **settings)
        torch.testing.assert_close(
            found.records["position"][:, member], torch.stack(path), rtol=1e-9, atol=1e-9
        )
        assert found.counts["losses"][member] == losses
        assert found.cost[member] == losses + 3 * 31
        other, _ = controlled_adam(POLY_TWO, where, restarts=False, **settings)
        dropped += not torch.equal(path[-1], other[-1])
    assert dropped == 2


@pytest.mark.parametrize(
    ("lr", "count", "seed"),
    [
        (1.0, 500, 1),
        *(pytest.param(lr, 10_000, 4, marks=pytest.mark.slow) for lr in ADAMS_COST),
    ],
)
def test_with_restarts_every_start_of_controlled_adam_converges_in_its_well(lr, count, seed):
    start = starts(count, seed)
    run = controlled(lr, start, steps=AFFORDABLE // 3, stop=fo.stop.gradient(1e-4), compile=True)
    assert (run.status == fo.Status.GRADIENT_SMALL).all()
    assert run.cost.max() <= AFFORDABLE
    assert run.cost.double().mean() < ADAMS_COST[lr] / 3
    trapped = POLY_TWO.loss(start) < 0.25
    (w, b), (first, second) = run.position[trapped].unbind(-1), start[trapped].unbind(-1)
    assert ((b > 0) == (second > 0)).all()
    assert ((w + b > 0) == (first + second > 0)).all()


@pytest.mark.parametrize(
    ("flow", "word"),
    [
        (fo.flows.heavy_ball(friction=0.2), "OBA"),
        (fo.flows.momentum_ema(rate=1.0), "MA"),
        (fo.flows.adam(momentum_rate=1.0, square_rate=0.5), "TMVA"),
    ],
    ids=["heavy ball", "momentum", "Adam"],
)
def test_a_step_is_that_of_the_scheme_from_rest_just_where_the_loss_would_rise(flow, word):
    scheme, start = fo.Splitting(word), starts(200, seed=3)
    state = fo.integrate(flow, scheme, POLY_TWO, start, step_size=0.05, steps=40).state
    here = evaluation_of(POLY_TWO, state.position)
    velocity = flow.drift(state, here).position
    climbs = sum(g * v for g, v in zip(here.gradient, velocity, strict=True)) > 0
    assert 0 < climbs.sum() < 200
    name = flow.energy(flow.energies[0]).momenta[0]
    still = tuple(torch.where(climbs, 0.0, leaf) for leaf in state.variables[name])
    expected, found = (
        fo.integrate(flow, method, POLY_TWO, begin, step_size=0.05, steps=1)
        for method, begin in (
            (scheme, state.updated({name: still})),
            (fo.Restarted(scheme), state),
        )
    )
    assert torch.equal(found.position, expected.position)
    assert torch.equal(found.counts["gradients"], expected.counts["gradients"])


def test_momenta_stay_where_the_energy_would_be_higher_without_them():
    # q = p + 1: at q = 0 the ball would not rest but fall back at speed 1.
    flow = fo.Flow.from_text(
        """
        A: dtheta/dt = q - shift
        B: dq/dt = -g
        start q = 1.1*shift
        energy mechanical: L + (q - shift)**2/2
        """,
        shift=1.0,
    )
    assert flow.energy("mechanical").momenta == ("q",)
    start, word = torch.tensor([1.0], dtype=torch.float64), fo.Splitting("AB")
    ends = [
        fo.integrate(flow, scheme, fo.problems.quadratic([1.0]), start, step_size=0.1, steps=1)
        for scheme in (word, fo.Restarted(word))
    ]
    assert torch.equal(ends[0].position, ends[1].position)


@pytest.mark.parametrize("scheme", [WORD, fo.RungeKutta("dopri5")], ids=repr)
def test_a_run_begins_as_that_of_the_scheme_and_has_its_points_between_steps(scheme):
    flow = fo.flows.adam(momentum_rate=1.0, square_rate=0.5)
    times = torch.tensor([0.005, 0.013], dtype=torch.float64)
    record = {"position": times} if scheme.interpolant_order else {"u_m": 1}
    settings = {"step_size": 0.01, "steps": 2, "record": record}
    where = starts(3, seed=5)
    own, restarted = (
        fo.integrate(flow, one, POLY_TWO, where, **settings)
        for one in (scheme, fo.Restarted(scheme))
    )
    (name,) = record
    # No step of the first two climbs: the momentum begins at zero.
    assert torch.equal(own.records[name], restarted.records[name])
    assert torch.equal(own.times[name], restarted.times[name])


def test_a_ball_without_friction_comes_to_rest():
    flow, start = fo.flows.heavy_ball(friction=0.0), torch.ones(2, dtype=torch.float64)
    settings = {"step_size": 0.1, "steps": 2000, "stop": fo.stop.rest(1e-6)}
    resting = fo.integrate(flow, fo.Restarted(fo.Splitting("OBA")), QUADRATIC, start, **settings)
    assert resting.status == fo.Status.GRADIENT_SMALL
    swinging = fo.integrate(flow, fo.Splitting("OBA"), QUADRATIC, start, **settings)
    assert swinging.status == fo.Status.STEPS_TAKEN


def test_a_gradient_at_the_start_that_the_word_does_not_take_is_counted():
    ball = fo.flows.heavy_ball(friction=0.5)
    for word, count in {"OBA": 1, "OAB": 1, "ABO": 1, "OABAO": 2}.items():
        scheme = fo.Restarted(fo.Splitting(word))
        assert scheme.gradient_evaluations(ball) == count, word


def test_an_optimizer_that_is_handed_its_gradients_restarts_as_one_that_knows_the_loss():
    inputs, labels = small_data()
    ends = []
    for scheme, knows in ((fo.Restarted, True), (fo.Restarted, False), (lambda word: word, False)):
        module = small_network()
        flow, rule = fo.flows.heavy_ball(friction=0.0), scheme(fo.Splitting("OBA"))
        optimizer = fo.optim.FlowOptimizer(module.parameters(), flow, rule, lr=1.0)
        for _ in range(50):
            optimizer.zero_grad()
            loss = cross_entropy(module(inputs), labels)
            if knows:
                optimizer.step(loss=lambda module=module: cross_entropy(module(inputs), labels))
            else:
                loss.backward()
                optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)
    assert (ends[1] - ends[2]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("flow", "word", "message"),
    [
        (fo.flows.langevin(friction=1.0, temperature=0.1), "BAOA", "has noise"),
        (fo.flows.gradient_flow(), "A", "quadratic in a momentum"),
    ],
)
def test_flows_without_momenta_that_may_rest_are_refused(flow, word, message):
    scheme = fo.Restarted(fo.Splitting(word))
    with pytest.raises(fo.CompatibilityError, match=message):
        scheme.check(flow)


def test_what_is_no_scheme_is_refused():
    with pytest.raises(fo.ConfigurationError, match="a scheme is such as"):
        fo.Restarted(fo.Euler)


def test_restarts_of_steps_that_look_for_a_balance_are_judged_by_whether_it_was_found():
    flow = fo.flows.heavy_ball(friction=0.1)
    start = torch.tensor([0.3, 0.8], dtype=torch.float64)
    solution = fo.integrate(
        flow,
        fo.Restarted(fo.EnergyMidpoint()),
        POLY_TWO,
        start,
        control=fo.Solved(first_step=0.05),
        steps=200,
        record={"energy": 1},
    )
    energy = solution.records["energy"]
    assert solution.status == fo.Status.STEPS_TAKEN
    assert (energy.diff() <= 1e-14 * energy[:-1]).all()
