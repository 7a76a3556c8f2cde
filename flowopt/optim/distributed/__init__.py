"""Optimizers of several processes, and their checkpoints."""
