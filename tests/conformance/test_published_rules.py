"""Methods that torch.optim does not have, against the rules that their papers print."""

import pytest
import torch

import flowopt as fo
from flowopt.core.interfaces import Key
from flowopt.core.noise import seeded_noise
from flowopt.flows.equations.equation_flow import CHANNELS_PER_LETTER
from tests.reference import published
from tests.reference.training import flat_position, small_problem

STEPS = 200
SEED = 5
BETAS = (0.8, 0.95)
RULES = [
    ("yogi", {"lr": 1e-2, "betas": BETAS, "eps": 1e-3, "initial_accumulator_value": 1e-6}),
    ("adabelief", {"lr": 1e-2, "betas": BETAS, "eps": 1e-8}),
    ("normalised_gd", {"lr": 1e-2}),
    ("clipped_gd", {"lr": 0.1, "threshold": 0.5}),
    ("sign_sgd", {"lr": 1e-3}),
    ("signum", {"lr": 1e-3, "momentum": 0.9}),
    ("lion", {"lr": 1e-3, "betas": BETAS}),
    ("lion", {"lr": 1e-3, "betas": BETAS, "weight_decay": 0.1}),
    ("heavy_ball", {"lr": 0.05, "momentum": 0.9}),
    ("accelerated_gradient", {"lr": 0.05}),
    ("inna", {"lr": 0.05, "friction": 0.5, "damping": 0.1}),
]
SAMPLERS = [
    ("sgld", {"lr": 0.05, "temperature": 1e-3}),
    ("sghmc", {"lr": 0.05, "momentum_decay": 0.1, "temperature": 1e-3}),
    ("sgnht", {"lr": 0.05, "diffusion": 0.5, "temperature": 1e-3}),
    ("psgld", {"lr": 1e-3, "alpha": 0.95, "eps": 1e-5, "temperature": 1e-3}),
]


class Gradients:
    """The gradient at a flat position, each time on the next minibatch."""

    def __init__(self, problem):
        self.problem, self.step = problem, 0
        self.shapes = [leaf.shape for leaf in problem.leaves(problem.start())]

    def __call__(self, position):
        pieces = position.split([shape.numel() for shape in self.shapes])
        leaves = tuple(p.reshape(s) for p, s in zip(pieces, self.shapes, strict=True))
        rows = self.problem.draw(self.step, SEED, ())
        self.step += 1
        return torch.cat([g.flatten() for g in self.problem.evaluate(leaves, rows).gradient])


def assert_ends_at(name, settings, expected):
    method, problem = getattr(fo.classic, name)(**settings), small_problem()
    solution = fo.integrate(
        method.flow,
        method.scheme,
        problem,
        problem.start(),
        step_size=method.step_size.item(),
        steps=STEPS,
        seed=SEED,
    )
    torch.testing.assert_close(flat_position(solution.position), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "settings"), RULES)
def test_a_method_steps_as_its_paper_prints(name, settings):
    problem = small_problem()
    start = flat_position(problem.start())
    expected = getattr(published, name)(start, Gradients(problem), STEPS, **settings)
    assert_ends_at(name, settings, expected)


@pytest.mark.parametrize(("name", "settings"), SAMPLERS)
def test_a_sampler_steps_as_its_paper_prints_with_the_same_noise(name, settings):
    method, problem = getattr(fo.classic, name)(**settings), small_problem()
    start = flat_position(problem.start())
    (place,) = (
        move.place
        for move in method.scheme.moves
        if any(term.diffusion for term in method.flow.equations.terms if term.letter == move.letter)
    )
    noise = seeded_noise(SEED, (), start.device)
    normals = [
        noise.normal((start,), Key(torch.tensor(step), place * CHANNELS_PER_LETTER))[0]
        for step in range(STEPS)
    ]
    expected = getattr(published, name)(start, Gradients(problem), normals, **settings)
    assert_ends_at(name, settings, expected)
