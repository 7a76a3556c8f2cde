"""Rules that follow a direction."""

import torch


def normalised_gd(position, gradient, steps, *, lr):
    """Cortés 2006, Automatica 42(11), 1993, equation 2, in steps."""
    for _ in range(steps):
        g = gradient(position)
        position = position - lr * g / torch.linalg.vector_norm(g)
    return position


def clipped_gd(position, gradient, steps, *, lr, threshold):
    """Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063, algorithm 1."""
    for _ in range(steps):
        g = gradient(position)
        norm = torch.linalg.vector_norm(g)
        if norm >= threshold:
            g = threshold / norm * g
        position = position - lr * g
    return position


def sign_sgd(position, gradient, steps, *, lr):
    """Bernstein et al. 2018, arXiv 1802.04434, algorithm 1."""
    for _ in range(steps):
        position = position - lr * torch.sign(gradient(position))
    return position


def signum(position, gradient, steps, *, lr, momentum):
    """Bernstein et al. 2018, arXiv 1802.04434, algorithm 2."""
    average = torch.zeros_like(position)
    for _ in range(steps):
        average = momentum * average + (1 - momentum) * gradient(position)
        position = position - lr * torch.sign(average)
    return position


def lion(position, gradient, steps, *, lr, betas, weight_decay=0.0):
    """Chen et al. 2023, arXiv 2302.06675, algorithm 2."""
    beta1, beta2 = betas
    average = torch.zeros_like(position)
    for _ in range(steps):
        g = gradient(position)
        direction = torch.sign(beta1 * average + (1 - beta1) * g)
        position = position - lr * (direction + weight_decay * position)
        average = beta2 * average + (1 - beta2) * g
    return position
