"""Effective sample sizes and R̂, against autoregressions whose correlation time is known."""

import math

import pytest
import torch

import flowopt as fo
from flowopt.diagnostics import effective_sample_size, r_hat

DRAWS, CHAINS, REPLICAS = 4000, 4, 64


def autoregression(memory, draws=DRAWS, chains=CHAINS, replicas=REPLICAS):
    """x' = φx + √(1 − φ²) ξ, stationary from the start: correlations are φ^lag."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(draws, chains, replicas, generator=generator, dtype=torch.float64)
    rows = [normals[0]]
    for normal in normals[1:]:
        rows.append(memory * rows[-1] + (1 - memory**2) ** 0.5 * normal)
    return torch.stack(rows)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, -0.5])
def test_the_effective_size_of_an_autoregression_is_known(memory):
    sizes = effective_sample_size(autoregression(memory))
    expected = DRAWS * CHAINS * (1 - memory) / (1 + memory)
    error = sizes.std() / REPLICAS**0.5
    assert error < 0.02 * expected
    # Where the sum ends is chosen by the draws, a bias of some 2 % at this length.
    assert abs(sizes.mean() - expected) < 5 * error + 0.02 * expected


def test_the_effective_size_says_how_well_the_mean_is_known():
    draws = autoregression(0.8, chains=1, replicas=2000, draws=500)
    size = effective_sample_size(draws).mean()
    variance = draws.mean((0, 1)).var()
    # A variance of 2000 values is known to √(2/2000), 3 %; its edges shorten a chain of 500 by 2 %.
    assert (variance * size).item() == pytest.approx(1.0, abs=5 * 0.032)


@pytest.mark.parametrize("draws", [4, 20, 200])
@pytest.mark.parametrize("memory", [0.0, -0.9])
def test_effective_sizes_are_positive_and_not_beyond_what_noise_can_tell(memory, draws):
    sizes = effective_sample_size(autoregression(memory, draws=draws))
    count = 2 * (draws // 2) * CHAINS
    assert ((sizes > 0) & (sizes <= count * math.log10(count) * (1 + 1e-12))).all()


def test_a_sampler_that_alternates_knows_its_standard_error():
    run = fo.sample(
        fo.flows.overdamped_langevin(temperature=1.0),
        fo.EulerMaruyama(),
        fo.problems.quadratic([1.0]),
        torch.zeros(4, 1, dtype=torch.float64),
        step_size=1.9,  # x' = −0.9 x + noise
        samples=100,
    )
    assert (run.standard_error > 0).all()


def test_chains_that_agree_have_an_r_hat_of_one():
    assert (r_hat(autoregression(0.5)) - 1).abs().max() < 0.01


def test_r_hat_is_what_the_formula_says_on_a_few_numbers():
    # Halves (1, 3), (5, 7), (2, 4), (6, 8): means 2, 6, 3, 7; variances 2 each.
    draws = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    means = torch.tensor([2.0, 6.0, 3.0, 7.0], dtype=torch.float64)
    pooled = 2.0 * (2 - 1) / 2 + means.var()
    torch.testing.assert_close(r_hat(draws), (pooled / 2.0).sqrt())


def test_a_drift_within_chains_shows():
    drifting = autoregression(0.5) + torch.linspace(0, 2, DRAWS).double()[:, None, None]
    assert (r_hat(drifting) > 1.1).all()
    assert (effective_sample_size(drifting) < 100).all()


def test_coordinates_are_judged_one_by_one():
    draws = autoregression(0.5, replicas=3)
    alone = [effective_sample_size(draws[..., i]) for i in range(3)]
    torch.testing.assert_close(effective_sample_size(draws), torch.stack(alone))


@pytest.mark.parametrize("shape", [(3, 2), (10,), (10, 0)])
def test_too_few_draws_are_refused(shape):
    with pytest.raises(fo.DataError, match="at least 4 samples"):
        effective_sample_size(torch.zeros(shape))
