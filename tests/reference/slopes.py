"""Expected-slope control in plain Python: a slow twin."""

import math

import torch


def excess(rule, cosine, memory):
    """What log h loses before the gain; the memory is changed."""
    if rule == "cos":
        return cosine
    if rule == "sign":
        return math.copysign(1.0, cosine) if cosine else 0.0
    memory["steps"] = memory.get("steps", 0) + 1
    memory["mean"] = 0.95 * memory.get("mean", 0.0) + 0.05 * cosine
    memory["square"] = 0.99 * memory.get("square", 0.0) + 0.01 * cosine**2
    size = math.sqrt(memory["square"] / (1.0 - 0.99 ** memory["steps"]))
    sure = max(-1.0, min(1.0, memory["mean"] / size - 0.1))
    return sure * abs(sure)


def controlled_descent(gradient, start, *, rule, gain, first, steps):
    """θ ← θ − hg, with h by the slope that the gradient of the next step has.

    Args:
        gradient: (position, step) → gradient on the minibatch of that step.
        start: Position, (dim,).
        rule: "sure", "cos" or "sign".
        gain: Of the rule.
        first: First h.
        steps: How many.

    Returns:
        Positions, (steps + 1, dim), and the step sizes h₀ … h_steps.
    """
    theta, h, memory = start, first, {}
    slope = gradient(theta, 0)
    path, lengths = [theta], [h]
    for step in range(steps):
        after = theta - h * slope
        slope_after = gradient(after, step + 1)
        way = after - theta
        norms = float(slope_after.norm()) * float(way.norm())
        h *= math.exp(-gain * excess(rule, float(slope_after @ way) / norms, memory))
        theta, slope = after, slope_after
        path.append(theta)
        lengths.append(h)
    return torch.stack(path), torch.tensor(lengths, dtype=torch.float64)
