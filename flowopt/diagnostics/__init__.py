"""Read-only functions of states and trajectories."""

from flowopt.diagnostics.chains import effective_sample_size, r_hat

__all__ = ["effective_sample_size", "r_hat"]
