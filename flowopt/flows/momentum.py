"""Second-order flows: momentum in its several scalings."""

from sympy import Rational, S, sqrt
from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, LaterStart, Term, g, p, symbol, t, theta

friction, lookahead, m = symbol("friction"), symbol("lookahead"), symbol("m")
damping = symbol("damping")
initial = symbol("initial")
rate, gain, memory = symbol("rate"), symbol("gain"), symbol("memory")

HEAVY_BALL = Equations(
    Term("O", drift={p: -friction * p}),
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    energies={"mechanical": LOSS + p**2 / 2},
    reference="Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1",
)

FADING_FRICTION = Equations(
    Term("O", drift={p: -sqrt((LOSS + total(p**2) / 2) / initial) * p, initial: S.Zero}),
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    scalars=[initial],
    start={initial: LOSS},
    energies={"mechanical": LOSS + p**2 / 2},
    reference="Bensaid 2024, arXiv 2407.01019",
)

NESTEROV = Equations(
    Term("B", drift={p: -g, theta: -lookahead * g}),
    Term("O", drift={p: -friction * p}),
    Term("A", drift={theta: p}),
    energies={"mechanical": LOSS + p**2 / 2},
    reference="Nesterov 1983, Soviet Math. Dokl. 27, 372",
)

ACCELERATED_GRADIENT = Equations(
    Term("O", drift={p: -damping / t * p}),
    Term("B", drift={p: -g}),
    Term("A", drift={theta: p}),
    energies={"mechanical": LOSS + p**2 / 2},
    reference="Su, Boyd & Candès 2016, JMLR 17(153), 1, equation 3",
    # A time far below any at which θ moves: it has moved by −∇L·t²/8.
    later_start=LaterStart(Rational(1, 10**6), {p: -g * t / (1 + damping)}),
)

MOMENTUM_EMA = Equations(
    Term("M", drift={m: rate * (gain * g - m)}),
    Term("A", drift={theta: -m}),
    energies={"mechanical": rate * gain * LOSS + m**2 / 2},
    reference="Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1, as a moving average",
)

NESTEROV_EMA = Equations(
    Term("M", drift={m: rate * (gain * g - m)}),
    Term("A", drift={theta: -(memory * m + (1 - memory) * gain * g)}),
    energies={"mechanical": rate * gain * LOSS + m**2 / 2},
    reference="Nesterov 1983, Soviet Math. Dokl. 27, 372, as a moving average",
)


def heavy_ball(*, friction: float | Tensor = 1.0) -> EquationFlow:
    """Heavy ball, θ' = p, p' = −∇L − friction·p.

    Word "OBA" with h = √lr and friction = −ln μ/h is torch's SGD with momentum μ at constant lr.

    Args:
        friction: Damping rate, 1/time.

    Reference:
        Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1.
    """
    return EquationFlow(HEAVY_BALL, name="heavy_ball", friction=friction)


def fading_friction() -> EquationFlow:
    """Heavy ball whose friction is the root of the energy that is left, in units of that at start.

    θ' = p,  p' = −∇L − √(E/E₀)·p,  E = L + |p|²/2,  E₀ = L at the start, both positive.

    Time is in units in which the first friction is 1. Where L vanishes at its minimum the friction
    does too, and E falls only as 1/t²; where it does not, p comes to rest exponentially. Word "OBA"
    with O by Euler, under `flowopt.LyapunovControl(growth=1e4)`, is Bensaid's LC_Mechanic.

    Reference:
        Bensaid 2024, arXiv 2407.01019.
    """
    return EquationFlow(FADING_FRICTION, name="fading_friction")


def nesterov(*, friction: float | Tensor = 1.0, lookahead: float | Tensor = 0.0) -> EquationFlow:
    """Nesterov's method at constant momentum, θ' = p − lookahead·∇L, p' = −∇L − friction·p.

    Word "BOA" with h = lookahead = √lr and friction = −ln μ/h is torch's SGD(nesterov=True); as
    the look-ahead vanishes the equation is the heavy ball.

    Args:
        friction: Damping rate, 1/time.
        lookahead: Time over which the position follows the gradient at once.

    Reference:
        Nesterov 1983, Soviet Math. Dokl. 27, 372.
    """
    return EquationFlow(NESTEROV, name="nesterov", friction=friction, lookahead=lookahead)


def momentum_ema(*, rate: float | Tensor = 1.0, gain: float | Tensor = 1.0) -> EquationFlow:
    """Momentum as a moving average of gradients, θ' = −m, m' = rate·(gain·∇L − m).

    Word "MA" is torch's SGD with momentum μ under any schedule of lr: with h = lr/(1 − μ),
    rate·h = −ln μ and gain 1; or, under schedules of μ too, with h = lr and gain = 1/(1 − μ).

    Args:
        rate: At which the average forgets, 1/time.
        gain: Factor of the gradient.

    Reference:
        Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1.
    """
    return EquationFlow(MOMENTUM_EMA, name="momentum_ema", rate=rate, gain=gain)


def nesterov_ema(
    *, rate: float | Tensor = 1.0, gain: float | Tensor = 1.0, memory: float | Tensor = 1.0
) -> EquationFlow:
    """Nesterov's momentum as a moving average, θ' = −(memory·m + (1 − memory)·gain·∇L).

    Word "MA" with memory = μ, and the rest as in `momentum_ema`, is torch's SGD(nesterov=True).

    Args:
        rate: At which the average forgets, 1/time.
        gain: Factor of the gradient.
        memory: Share of the average in the direction; the rest is the fresh gradient.

    Reference:
        Nesterov 1983, Soviet Math. Dokl. 27, 372.
    """
    return EquationFlow(NESTEROV_EMA, name="nesterov_ema", rate=rate, gain=gain, memory=memory)


def accelerated_gradient(*, damping: float | Tensor = 3.0) -> EquationFlow:
    """Nesterov's accelerated gradient as a flow, θ' = p, p' = −∇L − (damping/t)·p.

    With damping 3 it is the limit of θ₊ = y − h²∇L(y), y = θ + (k/(k + 3))·(θ − θ₋), t = kh. On a
    convex loss L − L* falls as 1/t². The friction is infinite at t = 0: schemes that need the
    summed drift begin shortly after.

    Args:
        damping: Friction times t, at least 3 for the rate above.

    Reference:
        Su, Boyd & Candès 2016, JMLR 17(153), 1, equation 3.
    """
    return EquationFlow(ACCELERATED_GRADIENT, name="accelerated_gradient", damping=damping)
