"""Random numbers of a kernel: those of the eager generator, and normal by themselves."""

import math

import pytest
import torch

import flowopt as fo
from flowopt.core.noise import seeded_noise
from tests.kernels import losses
from tests.kernels.machinery import assert_equal, by_kernel
from tests.reference.philox import KNOWN_ANSWERS, as_seed

TRAJECTORIES, STEPS = 4000, 50


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_in_a_kernel_gives_the_known_answers(counter, key, expected):
    block, trajectory, step, substep = counter
    seed = torch.tensor(as_seed(key))

    def uniforms(step, trajectory):
        return torch.ops.flowopt.uniform(seed, trajectory, step, substep, 4 * block, 4)

    ours = by_kernel(uniforms, torch.tensor([step]), torch.tensor([trajectory]))
    assert (ours * 2.0**32 - 0.5).flatten().tolist() == expected


def test_uniforms_of_a_kernel_are_those_of_the_eager_generator_in_every_bit():
    noise = seeded_noise(11, (TRAJECTORIES,), torch.device("cpu"))
    steps = torch.arange(TRAJECTORIES) // 7

    def uniforms(step, trajectory):
        return torch.cat(
            [
                torch.ops.flowopt.uniform(noise.seed, trajectory, step, substep, 0, 5)
                for substep in (0, 1, 66)
            ],
            -1,
        )

    assert_equal(by_kernel(uniforms, steps, noise.trajectory), uniforms(steps, noise.trajectory))


def _kicks():
    """Two Brownian motions drawn in a kernel, one per substep: (step, trajectory, coordinate)."""
    solution = fo.integrate(
        fo.Flow.from_text("W: dtheta/dt = dW/dt\nV: dp/dt = dW1/dt"),
        fo.Splitting("WV"),
        losses.Plain(losses.neuron),
        torch.zeros(TRAJECTORIES, 2, dtype=torch.float64),
        step_size=1.0,
        steps=STEPS,
        record={"position": 1, "p": 1},
        compile=True,
    )
    return [solution.records[name].diff(dim=0) for name in ("position", "p")]


def test_numbers_of_a_kernel_have_the_moments_and_the_law_of_normal_ones():
    numbers = torch.stack(_kicks()).flatten()
    count = len(numbers)
    # Five standard errors; the variance of the k-th power of a normal number is known.
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        error = math.sqrt(variance / count)
        assert abs(numbers.pow(power).mean() - mean) < 5 * error
    law = torch.special.ndtr(numbers.sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((steps[1:] - law).max(), (law - steps[:-1]).max())
    # Kolmogorov and Smirnov: exceeded with probability 2 exp(-2 x²) = 2e-7.
    assert distance * math.sqrt(count) < 2.84


def test_numbers_of_a_kernel_are_uncorrelated_across_lanes_steps_and_substeps():
    kicks, later = _kicks()
    pairs = {
        "neighbouring lanes": (kicks[:, 1:], kicks[:, :-1]),
        "lanes eight apart": (kicks[:, 8:], kicks[:, :-8]),
        "steps": (kicks[1:], kicks[:-1]),
        "substeps": (kicks, later),
        "coordinates": (kicks[..., 0], kicks[..., 1]),
        "squares of lanes": (kicks[:, 1:] ** 2 - 1, kicks[:, :-1] ** 2 - 1),
        "squares of steps": (kicks[1:] ** 2 - 1, kicks[:-1] ** 2 - 1),
    }
    for name, (a, b) in pairs.items():
        error = math.sqrt(float((a**2).mean() * (b**2).mean()) / a.numel())
        assert abs((a * b).mean()) < 5 * error, name
