"""Benchmarks: ratios measured within one run, written with the environment."""
