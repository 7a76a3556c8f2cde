"""Train a network on images with any set of optimizers, at equal cost."""
