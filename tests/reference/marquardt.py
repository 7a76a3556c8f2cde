"""Levenberg–Marquardt as it is published, one trajectory in plain Python: slow twins."""

import math

import torch


class Fit:
    """A least-squares problem ½|r|² at a point, and steps from there."""

    def __init__(self, residuals, theta):
        self.residuals, self.theta = residuals, theta
        self.values = residuals(theta)
        self.loss = 0.5 * float(self.values @ self.values)
        self.jacobian = torch.func.jacrev(residuals)(theta)
        self.gradient = self.jacobian.T @ self.values
        self.matrix = self.jacobian.T @ self.jacobian

    def solved(self, damping, right):
        return torch.linalg.solve(self.matrix + damping * torch.eye(len(right)).double(), right)

    def step(self, damping):
        return -self.solved(damping, self.gradient)

    def moved(self, step):
        return Fit(self.residuals, self.theta + step)

    def gain(self, after, step, damping):
        return 2 * (self.loss - after.loss) / float(step @ (damping * step - self.gradient))


def hagan_menhaj(fit, *, damping, steps):
    """Accept iff the cost falls, μ/10; else 10μ."""
    path = [fit.theta]
    while len(path) <= steps:
        after = fit.moved(fit.step(damping))
        if after.loss < fit.loss:
            fit, damping = after, damping / 10
            path.append(fit.theta)
        else:
            damping = damping * 10
    return path


def fletcher(fit, *, damping, steps):
    """μ/2 for ρ > 0.75, μν for ρ < 0.25, ν from a parabola along the step."""
    path = [fit.theta]
    while len(path) <= steps:
        step = fit.step(damping)
        after = fit.moved(step)
        ratio = fit.gain(after, step, damping)
        if ratio > 0.75:
            damping = damping / 2
        elif ratio < 0.25:
            rise = (after.loss - fit.loss) / float(-step @ fit.gradient)
            damping = damping * min(max(2 + rise, 2.0), 10.0)
        if ratio > 0:
            fit = after
            path.append(fit.theta)
    return path


def nielsen(fit, *, damping, steps):
    """μ·max(1/3, 1 − (2ρ − 1)³) for ρ > 0; else μν, ν ← 2ν."""
    path, raised = [fit.theta], 2.0
    while len(path) <= steps:
        step = fit.step(damping)
        after = fit.moved(step)
        ratio = fit.gain(after, step, damping)
        if ratio > 0:
            fit, raised = after, 2.0
            damping = damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3)
            path.append(fit.theta)
        else:
            damping, raised = damping * raised, 2 * raised
    return path


def bold_uphill(fit, *, damping, steps):
    """(1 − β)²·C ≤ the lowest C so far, μ/10; else 2μ."""
    path, lowest, last = [fit.theta], fit.loss, None
    while len(path) <= steps:
        step = fit.step(damping)
        after = fit.moved(step)
        cosine = 0.0 if last is None else float(step @ last / (step.norm() * last.norm()))
        if (1 - cosine) ** 2 * after.loss <= lowest:
            fit, last, damping = after, step, damping / 10
            lowest = min(lowest, fit.loss)
            path.append(fit.theta)
        else:
            damping = damping * 2
    return path


def accelerated(fit, *, damping, steps):
    """Hagan & Menhaj's rule for v + ½a, a = −(Q + μI)⁻¹Jᵀr″(v) where 2|½a| ≤ 0.75|v|."""
    path, second = [fit.theta], torch.func.hessian(fit.residuals)
    while len(path) <= steps:
        step = fit.step(damping)
        bent = torch.einsum("kij,i,j->k", second(fit.theta), step, step)
        turn = -0.5 * fit.solved(damping, fit.jacobian.T @ bent)
        kept = 2 * math.hypot(*turn.tolist()) <= 0.75 * math.hypot(*step.tolist())
        after = fit.moved(step + turn if kept else step)
        if after.loss < fit.loss:
            fit, damping = after, damping / 10
            path.append(fit.theta)
        else:
            damping = damping * 10
    return path
