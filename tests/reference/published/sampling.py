"""Rules with noise: each takes one standard normal of the position's shape for every step."""

import math

import torch


def sgld(position, gradient, normals, *, lr, temperature):
    """Welling & Teh 2011, ICML 28, 681, equation 4, with ε = 2 lr."""
    for normal in normals:
        kick = math.sqrt(2 * lr * temperature) * normal
        position = position - lr * gradient(position) + kick
    return position


def sghmc(position, gradient, normals, *, lr, momentum_decay, temperature):
    """Chen, Fox & Guestrin 2014, arXiv 1402.4102, equation 15, with no estimated noise."""
    velocity = torch.zeros_like(position)
    for normal in normals:
        kick = math.sqrt(2 * momentum_decay * lr * temperature) * normal
        velocity = velocity - lr * gradient(position) - momentum_decay * velocity + kick
        position = position + velocity
    return position


def sgnht(position, gradient, normals, *, lr, diffusion, temperature):
    """Ding et al. 2014, NeurIPS 27, algorithm 2."""
    momentum, thermostat = torch.zeros_like(position), diffusion
    for normal in normals:
        kick = math.sqrt(2 * diffusion * temperature * lr) * normal
        momentum = momentum - thermostat * momentum * lr - gradient(position) * lr + kick
        position = position + momentum * lr
        thermostat = thermostat + ((momentum**2).mean() - temperature) * lr
    return position


def psgld(position, gradient, normals, *, lr, alpha, eps, temperature):
    """Li, Chen, Carlson & Carin 2016, arXiv 1512.07666, algorithm 1, with ε = 2 lr."""
    average = torch.zeros_like(position)
    for normal in normals:
        g = gradient(position)
        average = alpha * average + (1 - alpha) * g**2
        scale = 1 / (eps + torch.sqrt(average))
        position = position - lr * scale * g + torch.sqrt(2 * lr * temperature * scale) * normal
    return position
