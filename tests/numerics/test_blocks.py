"""Blocks with equations of their own: each as alone, all as the papers have them."""

import math
from dataclasses import replace

import pytest
import torch

import flowopt as fo
from flowopt.core.interfaces import Key
from flowopt.core.noise import PhiloxNoise, seeded_noise
from flowopt.flows.equations.equation_flow import CHANNELS_PER_LETTER
from flowopt.registry import PARTITIONED
from tests.reference.published.sampling import adlala
from tests.reference.states import HILLS, Loss, flat

INFINITE = float("inf")
STEPS = 50
SEPARABLE = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([[0.9, -0.4], [0.2, 1.1], [-1.3, 0.6]], dtype=torch.float64)


def blocks(first, second, problem=SEPARABLE, **settings):
    partition = fo.Partition(problem, {"first": 0, "second": 1})
    return fo.PartitionedFlow(partition, {"first": first, "second": second}, **settings)


def run(flow, scheme, problem, start, step_size, **settings):
    scheme = fo.Splitting(scheme) if isinstance(scheme, str) else scheme
    settings = {"steps": STEPS, "compile": False, **settings}
    return fo.integrate(flow, scheme, problem, start, step_size=step_size, **settings)


def alone(flow, word, place, step_size, **settings):
    """One coordinate of the separable loss by itself, with the noise that it has among both."""
    problem = fo.problems.quadratic([(1.0, 4.0)[place]])
    noise = PhiloxNoise(torch.tensor(3), torch.arange(len(START)), (place,))
    return run(flow, word, problem, START[:, place : place + 1], step_size, noise=noise, **settings)


def langevin(friction=1.0, temperature=0.3):
    return fo.flows.langevin(friction=friction, temperature=temperature)


CASES = {
    "heavy ball and full redraws": (
        fo.flows.heavy_ball(friction=0.7),
        langevin(INFINITE),
        {},
        "BAOAB",
        ("BAOAB", "BAOAB"),
    ),
    "AdLaLa": (
        fo.flows.adaptive_langevin(temperature=0.3, driving_noise=0.4),
        langevin(),
        {"letters": {"first": {"O": "CDEDC"}}},
        "AOAB",
        ("ACDEDCAB", "AOAB"),
    ),
    "a flow without some of the letters": (
        langevin(),
        fo.flows.overdamped_langevin(temperature=0.3),
        {"letters": {"second": {"B": "A"}}},
        "OABAO",
        ("OABAO", "A"),
    ),
    "letters that move jointly": (
        langevin(),
        fo.flows.heavy_ball(friction=0.7),
        {},
        "(AO)B(AO)",
        ("(AO)B(AO)", "(AO)B(AO)"),
    ),
    "Adam beside Langevin dynamics": (
        langevin(),
        fo.flows.adam(),
        {"letters": {"second": {"B": "TMV"}}},
        "BAO",
        ("BAO", "TMVA"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_block_steps_as_it_would_alone(case):
    first, second, settings, word, words = CASES[case]
    together = run(blocks(first, second, **settings), word, SEPARABLE, START, 0.1, seed=3)
    for place, flow in enumerate((first, second)):
        own = alone(flow, words[place], place, 0.1)
        assert torch.equal(together.position[:, place : place + 1], own.position)
        for name, value in own.state.scalars.items():
            assert torch.equal(
                together.state.scalars[f"{('first', 'second')[place]}.{name}"], value
            )


@pytest.mark.parametrize(
    ("flow", "word"),
    [
        (langevin(), "BAOAB"),
        (fo.flows.accelerated_gradient(), "OBA"),
        (fo.flows.adaptive_langevin(temperature=0.1), "BACDEDCAB"),
    ],
    ids=["noise", "a clock", "a thermostat"],
)
def test_a_pace_is_a_step_size_of_its_own(flow, word):
    both = blocks(flow, flow, pace={"second": 0.25})
    together = run(both, word, SEPARABLE, START, 0.2, seed=3)
    for place, step_size in enumerate((0.2, 0.05)):
        own = alone(flow, word, place, step_size)
        # Times add up with other rounding.
        torch.testing.assert_close(
            together.position[:, place : place + 1], own.position, rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("clock", [{}, {"second": 0.0}])
def test_a_block_that_is_singular_at_rest_begins_one_of_its_own_steps_later(clock):
    flow = fo.flows.rmsprop(square_rate=10.0)
    both = blocks(fo.flows.gradient_flow(), flow, pace={"second": 0.5}, clock=clock)
    together = run(both, fo.Euler(), SEPARABLE, START, 0.02)
    own = alone(flow, fo.Euler(), 1, 0.01)
    torch.testing.assert_close(together.position[:, 1:], own.position, rtol=0, atol=1e-13)
    torch.testing.assert_close(together.state.time / 2, own.state.time, rtol=1e-13, atol=0)


def test_a_clock_is_the_time_that_a_block_has_at_the_start():
    # Whose friction 3/t is that of its time.
    flow = fo.flows.accelerated_gradient()
    both = blocks(flow, flow, clock={"second": 0.4})
    found = run(both, "OBA", SEPARABLE, START, 0.1, steps=3).position
    begun = run(flow, "OBA", SEPARABLE, START, 0.1, steps=0).state
    for place, time in ((0, 0.0), (1, 0.4)):
        late = replace(begun, time=torch.full_like(begun.time, time))
        expected = run(flow, "OBA", SEPARABLE, late, 0.1, steps=3).position
        torch.testing.assert_close(found[:, place], expected[:, place], rtol=0, atol=1e-14)
    assert not torch.allclose(expected[:, 0], found[:, 0])


def three(theta):
    x, y, z = theta.unbind(-1)
    return torch.cos(x + y) + x**2 + (y - z) ** 2 + z**4 / 4


@pytest.mark.parametrize("scheme", ["BAOAB", "ABO", fo.EulerMaruyama()], ids=str)
@pytest.mark.parametrize("division", [{"a": [0, 2], "b": 1}, {"c": 2, "b": 1, "a": 0}, {"a": ...}])
def test_one_equation_for_all_blocks_is_that_equation(division, scheme):
    problem = Loss(three, 3)
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = fo.PartitionedFlow(fo.Partition(problem, division), dict.fromkeys(division, langevin()))
    parted = run(flow, scheme, problem, start, 0.05)
    assert torch.equal(parted.position, run(langevin(), scheme, problem, start, 0.05).position)


def test_the_order_of_blocks_changes_nothing():
    flows = {"first": fo.flows.adaptive_langevin(temperature=0.1), "second": langevin()}
    found = []
    for names in (("first", "second"), ("second", "first")):
        partition = fo.Partition(HILLS, {name: ("first", "second").index(name) for name in names})
        flow = fo.PartitionedFlow(partition, flows, letters={"first": {"O": "CDEDC"}})
        found.append(flat(run(flow, "AOAB", HILLS, START, 0.1).state))
    assert torch.equal(*found)


def normals(place, parts, steps, seed=0):
    """The normals of an element at a place of its block's word, for every step."""
    noise = PhiloxNoise(torch.tensor(seed), torch.tensor(0), (parts,))
    like = (torch.zeros(1, dtype=torch.float64),)
    keys = [Key(torch.tensor(step), place * CHANNELS_PER_LETTER) for step in range(steps)]
    return [noise.normal(like, key)[0].item() for key in keys]


def test_adlala_is_leimkuhler_matthews_and_vlaars():
    registered = PARTITIONED["adlala"].build()
    flow = registered.with_hyperparameters(
        **{"first.temperature": 0.02, "first.driving_noise": 0.3, "second.temperature": 0.05}
    )
    solution = run(flow, "AOAB", HILLS, START[0], 0.25)
    draws = zip(normals(2, 0, STEPS), normals(4, 0, STEPS), normals(1, 1, STEPS), strict=True)
    gradient = torch.func.grad(HILLS.loss)
    expected, xi = adlala(
        START[0], gradient, draws, first=(0.25, 0.02, 0.3, 0.05), rest=(0.1, 0.05)
    )
    torch.testing.assert_close(solution.position, expected, rtol=0, atol=1e-12)
    assert solution.state.scalars["first.xi"].item() == pytest.approx(xi, abs=1e-13)


def test_lols_second_block_is_leimkuhler_and_matthews_with_half_the_step_squared():
    h, temperature = 0.2, 0.3
    flow = blocks(langevin(0.5, temperature), langevin(INFINITE, temperature), HILLS)
    path = run(flow, "BAOAB", HILLS, START[0], h, record={"position": 1}).records["position"]
    draws = torch.tensor(normals(2, 1, STEPS), dtype=torch.float64)
    force = -torch.func.vmap(torch.func.grad(HILLS.loss))(path)[:, 1]
    kicks = h / 2 * math.sqrt(temperature) * (draws[:-1] + draws[1:])
    expected = path[1:-1, 1] + h**2 / 2 * force[1:-1] + kicks
    torch.testing.assert_close(path[2:, 1], expected, rtol=0, atol=1e-14)


def test_a_step_of_length_zero_leaves_full_redraws_where_they_are():
    flow = blocks(langevin(INFINITE), langevin())
    solution = run(flow, "BAOAB", SEPARABLE, START, 0.0, steps=3)
    assert torch.equal(solution.position, START)
    assert solution.status[0] == fo.Status.STEPS_TAKEN


def test_the_noise_of_a_block_is_that_of_its_place_among_all_elements():
    noise, like = seeded_noise(1, (4,), START.device), (torch.zeros(4, dtype=torch.float64),)
    position = (torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 2, 5))
    key = Key(torch.zeros(4, dtype=torch.int64), 7)
    whole = noise.normal(position, key)
    for places in ((1,), (2, 0), (0, 1, 2)):
        own = noise.block(places, position).normal(tuple(position[i] for i in places), key)
        assert all(torch.equal(own[k], whole[place]) for k, place in enumerate(places))
    assert noise.block((1,), position).normal(like, key)[0].shape == (4,)
