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


def adlala(position, gradient, normals, *, first, rest):
    """Leimkuhler, Matthews & Vlaar 2019, equation 15: one step for each three of the normals.

    The first coordinate has adaptive Langevin dynamics, the other Langevin dynamics; a step is
    A¹A² C¹D¹E¹ O² E¹D¹C¹ A²A¹ with halves, then B²B¹ with one gradient.

    Args:
        position: (2,).
        gradient: Of the loss, (2,) to (2,).
        normals: Those of D¹, D¹ again, and O², as numbers.
        first: step_size, temperature, driving_noise, coupling.
        rest: friction, temperature.
    """
    h, temperature, noise, coupling = first
    friction, other = rest
    decay = math.exp(-friction * h)
    p, q, xi = 0.0, 0.0, 0.0
    x, y = position.tolist()
    for before, after, kick in normals:
        x, y = x + h / 2 * p, y + h / 2 * q
        p = math.exp(-xi * h / 2) * p
        p = p + noise * math.sqrt(h / 2) * before
        xi = xi + h / 2 * coupling * (p**2 - temperature)
        q = decay * q + math.sqrt(other * (1 - decay**2)) * kick
        xi = xi + h / 2 * coupling * (p**2 - temperature)
        p = p + noise * math.sqrt(h / 2) * after
        p = math.exp(-xi * h / 2) * p
        x, y = x + h / 2 * p, y + h / 2 * q
        slope = gradient(torch.tensor([x, y], dtype=torch.float64)).tolist()
        p, q = p - h * slope[0], q - h * slope[1]
    return torch.tensor([x, y], dtype=torch.float64), xi
