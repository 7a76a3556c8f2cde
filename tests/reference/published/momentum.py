"""Rules with inertia."""


def heavy_ball(position, gradient, steps, *, lr, momentum):
    """Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1, equation 9."""
    before = position
    for _ in range(steps):
        after = position - lr * gradient(position) + momentum * (position - before)
        before, position = position, after
    return position


def accelerated_gradient(position, gradient, steps, *, lr):
    """Su, Boyd & Candès 2016, JMLR 17(153), 1, equation 1; returns the point y."""
    x, y = position, position
    for k in range(1, steps + 1):
        before, x = x, y - lr * gradient(y)
        y = x + (k - 1) / (k + 2) * (x - before)
    return y


def inna(position, gradient, steps, *, lr, friction, damping):
    """Castera et al. 2021, JMLR 22(134), 1, algorithm 1, from rest."""
    psi = (1 - friction * damping) * position
    for _ in range(steps):
        shared = (1 / damping - friction) * position - psi / damping
        moved = position + lr * (shared - damping * gradient(position))
        psi = psi + lr * shared
        position = moved
    return position
