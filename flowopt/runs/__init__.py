"""Whole runs in one line."""

from flowopt.runs.sample import Samples, sample
from flowopt.runs.train import Training, train

__all__ = ["Samples", "Training", "sample", "train"]
