"""Random numbers: Philox itself, what they may and may not depend on, and their distribution."""

import math

import numpy
import pytest
import torch
from scipy import stats

from flowopt.core.interfaces import Key
from flowopt.core.noise import PhiloxNoise, _uniforms, philox, seeded_noise
from tests.reference.philox import KNOWN_ANSWERS, as_seed

CPU = torch.device("cpu")
COUNT = 200_000
# Five standard errors, as a probability.
FIVE_SIGMA = 2 * stats.norm.sf(5)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, expected):
    words = philox(tuple(torch.tensor(word) for word in counter), torch.tensor(as_seed(key)))
    assert [word.item() for word in words] == expected


def key(step=0, substep=0, batch=()):
    return Key(torch.full(batch, step, dtype=torch.int64), substep)


def normals(count, *, seed=1, step=0, substep=0):
    (drawn,) = seeded_noise(seed, (), CPU).normal(
        (torch.empty(count, dtype=torch.float64),), key(step, substep)
    )
    return drawn


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_a_trajectory_has_the_same_numbers_in_every_batch(kind):
    small, large = (
        getattr(seeded_noise(5, (size,), CPU), kind)(
            (torch.empty(size, 7, dtype=torch.float64),), key(3, 2, (size,))
        )[0]
        for size in (2, 9)
    )
    assert torch.equal(small, large[:2])


def test_trajectories_are_numbered_across_batch_dimensions():
    like = (torch.empty(2, 3, 5, dtype=torch.float64),)
    (grid,) = seeded_noise(5, (2, 3), CPU).normal(like, key(batch=(2, 3)))
    (row,) = seeded_noise(5, (6,), CPU).normal((like[0].reshape(6, 5),), key(batch=(6,)))
    assert torch.equal(grid.reshape(6, 5), row)


def test_a_single_trajectory_is_the_first_of_a_batch():
    (batch,) = seeded_noise(1, (3,), CPU).normal(
        (torch.empty(3, 6, dtype=torch.float64),), key(batch=(3,))
    )
    assert torch.equal(batch[0], normals(6))


@pytest.mark.parametrize("cuts", [(1, 2, 3, 5), (4, 7), (11,), (3, 3, 5)])
def test_leaves_share_one_sequence_of_numbers(cuts):
    noise = seeded_noise(1, (), CPU)
    pieces = noise.normal(tuple(torch.empty(n, dtype=torch.float64) for n in cuts), key())
    assert torch.equal(torch.cat(pieces), normals(sum(cuts)))


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 9, 14])
def test_a_shard_has_the_numbers_of_its_place(first):
    shard = PhiloxNoise(torch.tensor(1), torch.tensor(0), (first,))
    (piece,) = shard.normal((torch.empty(6, dtype=torch.float64),), key())
    assert torch.equal(piece, normals(20)[first : first + 6])


def test_the_shape_of_a_leaf_does_not_matter():
    (matrix,) = seeded_noise(1, (), CPU).normal((torch.empty(3, 4, dtype=torch.float64),), key())
    assert torch.equal(matrix.flatten(), normals(12))


def test_float32_leaves_get_the_rounded_numbers():
    (single,) = seeded_noise(1, (), CPU).normal((torch.empty(50),), key())
    assert torch.equal(single, normals(50).to(torch.float32))


def test_elements_beyond_two_to_the_32_blocks_have_numbers_of_their_own():
    far = 2**34
    draws = {}
    for substep in (0, 1):
        shard = PhiloxNoise(torch.tensor(1), torch.tensor(0), (far,))
        (draws[substep],) = shard.normal((torch.empty(8, dtype=torch.float64),), key(0, substep))
    near = [normals(8, substep=substep) for substep in (0, 1)]
    together = torch.stack([draws[0], draws[1], *near]).flatten()
    assert len(together.unique()) == 32


@pytest.mark.parametrize("where", ["seed", "step", "substep"])
def test_each_coordinate_of_a_draw_changes_all_its_numbers(where):
    assert not (normals(1000) == normals(1000, **{where: 7})).any()


@pytest.mark.parametrize("seed", [-1, 2**62, 2**63 - 1])
def test_seeds_of_any_sign_and_size_give_their_own_numbers(seed):
    assert not (normals(100, seed=seed) == normals(100)).any()


def test_the_two_halves_of_a_seed_both_count():
    assert not (normals(100, seed=1 << 32) == normals(100, seed=0)).any()


def test_uniforms_lie_strictly_between_zero_and_one():
    largest = torch.tensor(0xFFFFFFFF)
    low, high = _uniforms((torch.tensor(0), largest))
    assert 0.0 < low.item() < high.item() < 1.0


def test_normals_have_the_moments_of_the_normal_distribution():
    drawn = normals(COUNT)
    # Moment n has variance ⟨x²ⁿ⟩ − ⟨xⁿ⟩².
    for moment, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        error = 5 * math.sqrt(variance / COUNT)
        assert abs((drawn**moment).mean().item() - mean) < error


def test_normals_are_normal_and_uniforms_uniform():
    noise = seeded_noise(2, (), CPU)
    like = (torch.empty(COUNT, dtype=torch.float64),)
    assert stats.kstest(noise.normal(like, key())[0].numpy(), "norm").pvalue > FIVE_SIGMA
    assert stats.kstest(noise.uniform(like, key())[0].numpy(), "uniform").pvalue > FIVE_SIGMA


@pytest.mark.parametrize("lane", range(4))
def test_each_of_the_four_lanes_is_normal_by_itself(lane):
    assert stats.kstest(normals(COUNT)[lane::4].numpy(), "norm").pvalue > FIVE_SIGMA


def grid(where):
    """Rows of normals that differ in one coordinate of the draw, (8, COUNT / 8)."""
    columns = COUNT // 8
    if where == "lane":
        return normals(COUNT).reshape(-1, 8).T
    if where == "trajectory":
        like = (torch.empty(8, columns, dtype=torch.float64),)
        return seeded_noise(1, (8,), CPU).normal(like, key(batch=(8,)))[0]
    return torch.stack([normals(columns, **{where: number}) for number in range(8)])


@pytest.mark.parametrize("where", ["lane", "trajectory", "step", "substep", "seed"])
@pytest.mark.parametrize("power", [1, 2])
def test_draws_are_uncorrelated_across(where, power):
    rows = grid(where).numpy() ** power
    correlations = numpy.corrcoef(rows) - numpy.eye(8)
    assert numpy.abs(correlations).max() < 5 / math.sqrt(COUNT // 8)


def test_successive_steps_of_one_element_are_white():
    steps = torch.arange(COUNT // 8)
    noise = PhiloxNoise(torch.tensor(1), torch.zeros_like(steps))
    (column,) = noise.normal((torch.empty(len(steps), 1, dtype=torch.float64),), Key(steps, 0))
    series = column.flatten()
    for lag in (1, 2, 5):
        correlation = (series[lag:] * series[:-lag]).mean().item()
        assert abs(correlation) < 5 / math.sqrt(len(series) - lag)
