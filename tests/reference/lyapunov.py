"""Energy control as it is published, one trajectory in plain Python: slow twins."""

import torch


def controlled_descent(problem, start, *, dissipation, shrink, growth, first, restart, steps):
    """R(θ − ηg) − R(θ) ≤ −λη|g|², as in LC_EGD; plain decrease with λ = 0, as in GD_Em."""
    theta, h = start, first
    path = [theta]
    for _ in range(steps):
        gradient = problem.gradient(theta)
        bound = float((gradient * gradient).sum())
        while True:
            after = theta - h * gradient
            change = float(problem.loss(after)) - float(problem.loss(theta))
            if change <= dissipation * h * -bound:
                break
            h *= shrink
        theta, h = after, first if restart else growth * h
        path.append(theta)
    return path


def controlled_momentum(problem, start, *, rate, dissipation, shrink, growth, first, steps):
    """m ← (1 − bh)m + bhg, θ ← θ − hm; E = bR + |m|²/2 falls by λbh|m′|², as in LC_M."""
    theta, m, h = start, torch.zeros_like(start), first
    path = [theta]
    for _ in range(steps):
        gradient = problem.gradient(theta)
        while True:
            m_after = m + h * (rate * (gradient - m))
            after = theta - h * m_after
            energy = [
                rate * float(problem.loss(where)) + float((momentum * momentum).sum()) / 2
                for where, momentum in ((theta, m), (after, m_after))
            ]
            bound = -rate * float((m_after * m_after).sum())
            if energy[1] - energy[0] <= dissipation * h * bound:
                break
            h *= shrink
        theta, m, h = after, m_after, growth * h
        path.append(theta)
    return path
