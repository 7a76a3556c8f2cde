"""Projection and energy balance as they are published, one trajectory in plain Python: twins."""

import math

import torch


def projected_descent(problem, start, *, tolerance, most, shrink, growth, first, largest, steps):
    """PGD: R = R_n − η|g_n|², by simplified Newton iterations along the gradient of Euler's end.

    Published with most = 1000 iterations, and growth only after less than five.
    """
    theta, h, path, losses = start, first, [start], 0
    while len(path) <= steps:
        gradient, loss = problem.gradient(theta), float(problem.loss(theta))
        target = loss - h * float(gradient @ gradient)
        end = theta - h * gradient
        ahead, share, after = problem.gradient(end), 0.0, end
        excess, loops = float(problem.loss(after)) - target, 0
        while abs(excess) > tolerance and loops < most:
            share -= excess / float(ahead @ ahead)
            after = end + share * ahead
            excess, loops = float(problem.loss(after)) - target, loops + 1
        losses += loops
        if abs(excess) <= tolerance:
            theta, h = after, min(growth * h, largest)
            path.append(theta)
        else:
            h, losses = shrink * h, losses + 1
    return path, losses


def projected_momentum(problem, start, *, rate, tolerance, most, shrink, growth, first, steps):
    """PM: the same for E = bR + |m|²/2 = E_n − bη|m_n|², along (bg, m) of Euler's end."""
    theta, m, h, path = start, torch.zeros_like(start), first, [start]

    def energy(position, momentum):
        return rate * float(problem.loss(position)) + float(momentum @ momentum) / 2

    while len(path) <= steps:
        target = energy(theta, m) - rate * h * float(m @ m)
        end = theta - h * m
        moved = m + rate * h * (problem.gradient(theta) - m)
        ahead = rate * problem.gradient(end)
        steepness, share = float(ahead @ ahead + moved @ moved), 0.0
        after, turned, loops = end, moved, 0
        while abs(excess := energy(after, turned) - target) > tolerance and loops < most:
            share -= excess / steepness
            after, turned, loops = end + share * ahead, (1 + share) * moved, loops + 1
        if abs(excess) <= tolerance:
            theta, m, h = after, turned, growth * h
            path.append(theta)
        else:
            h = shrink * h
    return path


def balanced_momentum(problem, start, *, rate, shrink, growth, first, steps):
    """LC_EM: θ⁺ = θ + ηv and the larger root of ax² + bx + c for v⁺ = (4x − 1)v − 2bηxg.

    With b = 1 a momentum at rest begins as −g.
    """
    theta, v, h, path = start, torch.zeros_like(start), first, [start]
    while len(path) <= steps:
        gradient, loss = problem.gradient(theta), float(problem.loss(theta))
        square, product = float(v @ v), float(v @ gradient)
        if square < 1e-12:
            v = -gradient
            theta = theta + h * v
        else:
            while True:
                end, push = theta + h * v, rate * h
                a = (2 + push) * (
                    4 * square + push**2 * float(gradient @ gradient) - 4 * push * product
                )
                b = 2 * push * product - 4 * square
                c = rate * (float(problem.loss(end)) - loss)
                discriminant = b * b - 4 * a * c
                if discriminant >= 0 and abs(a) >= 1e-12:
                    break
                h *= shrink
            roots = [(-b + sign * math.sqrt(discriminant)) / (2 * a) for sign in (-1, 1)]
            x = max(roots, key=abs)
            theta, v = end, (4 * x - 1) * v - 2 * push * x * gradient
        h *= growth
        path.append(theta)
    return path
