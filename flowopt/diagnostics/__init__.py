"""Read-only functions of states and trajectories."""

from flowopt.diagnostics.basins import (
    basin_entropy,
    binomial_interval,
    boundary,
    components,
    convexity,
    end_labels,
)
from flowopt.diagnostics.chains import effective_sample_size, r_hat

__all__ = [
    "basin_entropy",
    "binomial_interval",
    "boundary",
    "components",
    "convexity",
    "effective_sample_size",
    "end_labels",
    "r_hat",
]
