"""Expected-slope control in plain Python: a slow twin."""

import math

import torch


def excess(rule, slope, theta, began, h, memory):
    """What log h loses before the gain; the memory is changed."""
    near = cosine(slope, theta - began)
    if rule == "cos":
        return near
    if rule == "sign":
        return math.copysign(1.0, near) if near else 0.0
    middle = memory.get("middle", began)
    far = cosine(slope, theta - middle)
    memory["steps"] = steps = memory.get("steps", 0) + 1
    last, length = memory.get("last", (h, 0.0))
    length = length * min(1.0, last / h) + 1.0
    memory["last"] = h, length
    memory["middle"] = (length * middle + theta) / (length + 1.0)
    sure = {}
    for name, value in (("far", far), ("near", near)):
        mean, square = memory.get(name, (0.0, 0.0))
        memory[name] = mean, square = 0.95 * mean + 0.05 * value, 0.99 * square + 0.01 * value**2
        size = math.sqrt(square / (1.0 - 0.99**steps))
        sure[name] = max(-1.0, min(1.0, mean / size))
    beyond = max(-1.0, sure["near"] - 0.5)
    larger = max(sure["far"] * abs(sure["far"]), beyond * abs(beyond))
    return larger * min(1.0, 50 / length)


def cosine(slope, way):
    """Of the angle between two vectors."""
    return float(slope @ way) / (float(slope.norm()) * float(way.norm()))


def controlled_descent(gradient, start, *, rule, gain, first, steps):
    """θ ← θ − hg, with h by the slope that the gradient of the next step has.

    Args:
        gradient: (position, step) → gradient on the minibatch of that step.
        start: Position, (dim,).
        rule: "path", "cos" or "sign".
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
        h *= math.exp(-gain * excess(rule, slope_after, after, theta, h, memory))
        theta, slope = after, slope_after
        path.append(theta)
        lengths.append(h)
    return torch.stack(path), torch.tensor(lengths, dtype=torch.float64)
