"""Energy control as it is published, one trajectory in plain Python: slow twins."""

import math

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


def dichotomy_descent(problem, start, *, dissipation, shrink, growth, first, loops, steps):
    """LC_EGD2: after a rejection, bisects log h between what holds and what failed last."""
    theta, h = start, first
    path = [theta]
    for _ in range(steps):
        gradient, loss = problem.gradient(theta), float(problem.loss(theta))
        slope = float((gradient * gradient).sum())

        def holds(h, theta=theta, gradient=gradient, loss=loss, slope=slope):
            return float(problem.loss(theta - h * gradient)) - loss <= -dissipation * h * slope

        failed = None
        while not holds(h):
            failed, h = h, h * shrink
        for _ in range(loops if failed else 0):
            middle = math.sqrt(h * failed)
            h, failed = (middle, failed) if holds(middle) else (h, middle)
        theta, h = theta - h * gradient, growth * h
        path.append(theta)
    return path


def modelled_descent(problem, start, *, dissipation, safety, floor, first, steps):
    """LC_EGD3: h ← ρh(1 − λ)|g|²/max((R⁺ − R)/h + |g|², ε₀(1 − λ)|g|²) after every trial."""
    theta, h = start, first
    path = [theta]
    for _ in range(steps):
        gradient, loss = problem.gradient(theta), float(problem.loss(theta))
        slope, accepted = float((gradient * gradient).sum()), False
        while not accepted:
            after = theta - h * gradient
            change = float(problem.loss(after)) - loss
            accepted = change <= -dissipation * h * slope
            asked = (1 - dissipation) * slope
            h *= safety * asked / max(change / h + slope, floor * asked)
        theta = after
        path.append(theta)
    return path


def cumulative_descent(problem, start, *, dissipation, shrink, growth, first, steps):
    """LCI_EGD: R − R₀ ≤ −λh Σ|g|² over all steps so far."""
    theta, h, total = start, first, 0.0
    path = [theta]
    for _ in range(steps):
        gradient = problem.gradient(theta)
        total += float((gradient * gradient).sum())
        while float(problem.loss(theta - h * gradient)) - float(problem.loss(start)) > (
            -dissipation * h * total
        ):
            h *= shrink
        theta, h = theta - h * gradient, growth * h
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


def controlled_adam(
    problem, start, *, rates, eps, dissipation, shrink, growth, first, steps, restarts=False
):
    """Adam by exact maps of its averages; E = aR + f·Σm²/2D falls by λhf·Σm²/D·(a − b/4).

    f = √u_v/u_m and D = √v + eps·√u_v, all after the trial on both sides of the bound. With
    restarts m ← 0 at the start of a trial where ⟨∇R, −f·m/D⟩ > 0.
    """
    a, b = rates
    zero = torch.zeros_like(start)
    theta, m, v, u_m, u_v, h = start, zero, zero, 0.0, 0.0, first
    energy, path, losses = a * float(problem.loss(theta)), [theta], 0
    for _ in range(steps):
        gradient = problem.gradient(theta)
        kept = m
        if restarts and float((gradient * m / (v.sqrt() + eps * math.sqrt(u_v))).sum()) < 0:
            kept = zero
        while True:
            p, q = math.exp(-a * h), math.exp(-b * h)
            m_after, v_after = p * kept + (1 - p) * gradient, q * v + (1 - q) * gradient**2
            u_m_after, u_v_after = p * u_m + (1 - p), q * u_v + (1 - q)
            after = theta - h * (m_after / u_m_after) / ((v_after / u_v_after).sqrt() + eps)
            scale = v_after.sqrt() + eps * math.sqrt(u_v_after)
            motion = math.sqrt(u_v_after) / u_m_after * float((m_after**2 / scale).sum())
            energy_after = a * float(problem.loss(after)) + motion / 2
            if energy_after - energy <= -dissipation * h * motion * (a - b / 4):
                break
            h, losses = h * shrink, losses + 1
        theta, m, v, u_m, u_v = after, m_after, v_after, u_m_after, u_v_after
        h, energy = growth * h, energy_after
        path.append(theta)
    return path, losses


def controlled_mechanic(problem, start, *, dissipation, shrink, growth, first, steps):
    """LC_Mechanic: p ← (1 − h√(E/E₀))p − hg, θ ← θ + hp; E falls by λh√(E/E₀)|p′|².

    E in the bound is that where θ is moved: with the loss before and the momentum after.
    """
    theta, p, h = start, torch.zeros_like(start), first
    initial, path = float(problem.loss(start)), [start]
    for _ in range(steps):
        gradient, loss = problem.gradient(theta), float(problem.loss(theta))
        energy = loss + float(p @ p) / 2
        while True:
            p_after = (1 - h * math.sqrt(energy / initial)) * p - h * gradient
            after, square = theta + h * p_after, float(p_after @ p_after)
            friction = math.sqrt((loss + square / 2) / initial)
            gained = float(problem.loss(after)) + square / 2 - energy
            if gained <= -dissipation * h * friction * square:
                break
            h *= shrink
        theta, p, h = after, p_after, growth * h
        path.append(theta)
    return path
