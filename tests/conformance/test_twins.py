"""Flows under their words against slow twins written from the papers."""

import math

import torch

import flowopt as fo
from flowopt.core.interfaces import Key
from flowopt.core.noise import seeded_noise
from flowopt.flows.equations.equation_flow import CHANNELS_PER_LETTER
from tests.reference import rules

STEPS = 100
ROSENBROCK = fo.problems.rosenbrock()
START = torch.tensor([[-1.2, 1.0], [0.3, 0.8], [1.5, 2.0]], dtype=torch.float64)


def run(flow, word, step_size, **settings):
    return fo.integrate(
        flow, fo.Splitting(word), ROSENBROCK, START, step_size=step_size, steps=STEPS, **settings
    ).position


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_heavy_ball_is_polyaks():
    expected = rules.heavy_ball(
        START, ROSENBROCK.gradient, friction=2.0, step_size=0.01, steps=STEPS
    )
    assert_equal(run(fo.flows.heavy_ball(friction=2.0), "OBA", 0.01), expected)


def test_adam_is_kingma_and_bas():
    expected = rules.adam(
        START,
        ROSENBROCK.gradient,
        learning_rate=0.02,
        beta1=0.9,
        beta2=0.99,
        eps=1e-8,
        steps=STEPS,
    )
    flow = fo.flows.adam(momentum_rate=-math.log(0.9) / 0.02, square_rate=-math.log(0.99) / 0.02)
    assert_equal(run(flow, "TMVA", 0.02), expected)


def test_baoab_is_leimkuhler_and_matthews():
    noise = seeded_noise(4, (3,), START.device)
    place_of_o = "BAOAB".index("O") * CHANNELS_PER_LETTER
    columns = tuple(START.unbind(-1))
    normals = [
        torch.stack(noise.normal(columns, Key(torch.full((3,), step), place_of_o)), -1)
        for step in range(STEPS)
    ]
    expected = rules.baoab(
        START, ROSENBROCK.gradient, normals, friction=1.5, temperature=0.1, step_size=0.01
    )
    flow = fo.flows.langevin(friction=1.5, temperature=0.1)
    assert_equal(run(flow, "BAOAB", 0.01, seed=4), expected)
