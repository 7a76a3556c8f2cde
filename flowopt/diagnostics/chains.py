"""What samples of Markov chains are worth.

Both numbers split every chain in halves, so that a drift within one shows as chains that differ.

Reference:
    Gelman, Carlin, Stern, Dunson, Vehtari & Rubin 2013, Bayesian Data Analysis, section 11.4 and
    11.5; Geyer 1992, Stat. Sci. 7(4), 473; Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021,
    Bayesian Anal. 16(2), 667, without its ranks.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from flowopt.errors import DataError

LEAST_DRAWS = 4


def effective_sample_size(draws: Tensor) -> Tensor:
    """How many independent draws would give the mean as well: N·M/τ for M chains of N draws.

    τ = 1 + 2 Σₜ ρₜ sums the autocorrelations ρₜ = 1 − (W − mean covariance at lag t)/V, with W the
    mean variance within chains and V the pooled one, up to where Geyer's sums of pairs
    ρ₂ₖ + ρ₂ₖ₊₁ become negative, none counted for more than the one before. Draws that alternate
    are worth more than independent ones, but are counted as at most log₁₀(N·M) times as many: a τ
    of less is not told from the noise of its sum, which may fall below zero.

    Args:
        draws: (sample, chain, …), at least 4 samples.

    Returns:
        (…), float64; NaN where draws are not finite or all the same.

    Raises:
        DataError: There are too few draws, or no axis of chains.
    """
    parts = _moments(draws)
    count = parts.chains.shape[0]
    correlations = 1.0 - (parts.within - parts.covariances.mean(1)) / parts.pooled
    # At lag 0 the formula is short of 1 by 1/N, as much as τ where draws alternate; NaN stays NaN.
    correlations[0] = 1.0 + 0.0 * correlations[0]
    pairs = correlations[: count - count % 2].unflatten(0, (-1, 2)).sum(1)
    counted = torch.cumprod((pairs > 0).to(pairs.dtype), 0)
    falling = torch.cummin(pairs, 0).values
    draws_in_all = parts.chains.shape[0] * parts.chains.shape[1]
    time = -1.0 + 2.0 * (falling * counted).sum(0)
    return draws_in_all / time.clamp(min=1.0 / math.log10(draws_in_all))


def r_hat(draws: Tensor) -> Tensor:
    """Potential scale reduction √(V/W): near 1 where chains, and their halves, agree.

    Args:
        draws: (sample, chain, …), at least 4 samples.

    Returns:
        (…), float64; NaN where draws are not finite or all the same.

    Raises:
        DataError: There are too few draws, or no axis of chains.
    """
    parts = _moments(draws)
    return torch.sqrt(parts.pooled / parts.within)


class _Moments(NamedTuple):
    """Half chains (sample, chain, …), and their covariances (lag, chain, …)."""

    chains: Tensor
    covariances: Tensor
    within: Tensor
    pooled: Tensor


def _moments(draws: Tensor) -> _Moments:
    if draws.ndim < 2 or draws.shape[0] < LEAST_DRAWS or draws.shape[1] < 1:
        raise DataError(
            f"draws have the shape (sample, chain, …) with at least {LEAST_DRAWS} samples, got "
            f"{tuple(draws.shape)}"
        )
    half = draws.shape[0] // 2
    # Of an odd number of draws, the one in the middle is in neither half.
    chains = torch.cat([draws[:half], draws[-half:]], 1).to(torch.float64)
    means = chains.mean(0)
    spectrum = torch.fft.rfft(chains - means, n=2 * half, dim=0)
    covariances = torch.fft.irfft(spectrum.abs().square(), n=2 * half, dim=0)[:half] / half
    within = covariances[0].mean(0) * half / (half - 1)
    pooled = within * (half - 1) / half + means.var(0)
    return _Moments(chains, covariances, within, pooled)
