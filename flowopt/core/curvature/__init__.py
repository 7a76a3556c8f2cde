"""Curvature of the loss: products with it, its matrices, and systems that they make."""
