"""Euler–Richardson in the author's form, one trajectory in plain Python: a slow twin."""


def extragradient(problem, start, *, tolerance, first, stop, most):
    """Where |∇L| at the probe falls to `stop`, and after how many trials, taken or not."""
    theta, h = start, first
    gradient = problem.gradient(theta)
    for trial in range(1, most + 1):
        probe = theta - h * gradient
        ahead = problem.gradient(probe)
        if float(ahead.norm()) <= stop:
            return probe, trial
        error = h / 2 * float((gradient - ahead).norm()) / tolerance
        if error <= 1:
            theta = theta - h * ahead
            gradient = problem.gradient(theta)
        h *= 0.9 / error**0.5
    return theta, most
