"""Optimizers for losses that are sums of squares, or convex functions of outputs."""

from flowopt.optim.least_squares.marquardt import LevenbergMarquardt

__all__ = ["LevenbergMarquardt"]
