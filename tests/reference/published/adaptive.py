"""Rules with averages of squares."""

import torch


def yogi(position, gradient, steps, *, lr, betas, eps, initial_accumulator_value):
    """Zaheer et al. 2018, NeurIPS 31, algorithm 2."""
    beta1, beta2 = betas
    first = torch.zeros_like(position)
    second = torch.full_like(position, initial_accumulator_value)
    for _ in range(steps):
        g = gradient(position)
        first = beta1 * first + (1 - beta1) * g
        second = second - (1 - beta2) * torch.sign(second - g**2) * g**2
        position = position - lr * first / (torch.sqrt(second) + eps)
    return position


def adabelief(position, gradient, steps, *, lr, betas, eps):
    """Zhuang et al. 2020, arXiv 2010.07468, algorithm 2."""
    beta1, beta2 = betas
    first, second = torch.zeros_like(position), torch.zeros_like(position)
    for step in range(1, steps + 1):
        g = gradient(position)
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * (g - first) ** 2 + eps
        corrected_first = first / (1 - beta1**step)
        corrected_second = second / (1 - beta2**step)
        position = position - lr * corrected_first / (torch.sqrt(corrected_second) + eps)
    return position
