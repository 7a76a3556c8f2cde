"""Rules with inertia in their own time: heavy ball, accelerated gradient, INNA."""

from functools import cache

from sympy import log, sqrt
from torch import Tensor

from flowopt.classic.checks import check_below_one, check_not_negative
from flowopt.classic.method import Method, Rule, formulas, nonzero, same
from flowopt.errors import ConfigurationError
from flowopt.flows.momentum import HEAVY_BALL
from flowopt.flows.newton import INNA
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, Term, g, p, symbol, theta

lr, turn, age = symbol("lr"), symbol("turn"), symbol("age")
lookahead = symbol("lookahead")

# The momentum of the k-th step is multiplied by k/(k + 3): a friction of 3/t as steps get small.
ACCELERATED = Equations(
    Term("B", drift={p: -g, theta: -lookahead * g}),
    Term("O", drift={p: turn * log(age / (age + 3)) * p}),
    Term("A", drift={theta: p}),
    Term("T", drift={age: turn}),
    scalars=[age],
    reference="Nesterov 1983, Soviet Math. Dokl. 27, 372; Su, Boyd & Candes 2016, JMLR 17(153), 1",
)


@cache
def _heavy_ball_rule() -> Rule:
    table = formulas(friction=-log(symbol("momentum")))
    scheme = Splitting("OBA")
    return Rule("heavy_ball", HEAVY_BALL, scheme, sqrt(lr), table, frozenset({"friction"}))


def heavy_ball(*, lr: float | Tensor = 1e-2, momentum: float | Tensor = 0.9) -> Method:
    """Polyak's heavy ball, θ₊ = θ − lr ∇L(θ) + μ(θ − θ₋), stepped in its own time √lr.

    At constant lr it makes the steps of `sgd`; under a schedule the friction stays the same.

    Args:
        lr: Learning rate.
        momentum: μ in [0, 1).

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Polyak 1964, USSR Comput. Math. Math. Phys. 4(5), 1.
    """
    check_not_negative(lr=lr, momentum=momentum)
    check_below_one(momentum=momentum)
    return Method(_heavy_ball_rule(), {"lr": lr, "momentum": momentum})


@cache
def _accelerated_rule() -> Rule:
    table = formulas(turn=1, lookahead=sqrt(lr))
    scheme = Splitting("BOAT")
    return Rule("accelerated_gradient", ACCELERATED, scheme, sqrt(lr), table, frozenset({"turn"}))


def accelerated_gradient(*, lr: float | Tensor = 1e-2) -> Method:
    """Nesterov's accelerated gradient for convex losses.

    x₊ = y − lr ∇L(y),  y₊ = x₊ + k/(k + 3)·(x₊ − x) in the k-th step from 0; θ is y.

    Args:
        lr: Learning rate, at most 1/(Lipschitz constant of ∇L) for the rate 1/k².

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Nesterov 1983, Soviet Math. Dokl. 27, 372; Su, Boyd & Candès 2016, JMLR 17(153), 1,
        equation 1.
    """
    check_not_negative(lr=lr)
    return Method(_accelerated_rule(), {"lr": lr})


@cache
def _inna_rule() -> Rule:
    scheme = Splitting("A", maps={"A": "euler"})
    return Rule("inna", INNA, scheme, lr, same("friction", "damping"), frozenset())


def inna(
    *,
    lr: float | Tensor = 1e-2,
    friction: float | Tensor = 0.5,
    damping: float | Tensor = 0.1,
) -> Method:
    """INNA, inertial Newton steps from gradients alone.

    Args:
        lr: Step size.
        friction: α.
        damping: β > 0.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Castera, Bolte, Févotte & Pauwels 2021, JMLR 22(134), 1, algorithm 1.
    """
    check_not_negative(lr=lr, friction=friction, damping=damping)
    if not nonzero(damping):
        raise ConfigurationError("Invalid damping value: 0; expected a positive number")
    return Method(_inna_rule(), {"lr": lr, "friction": friction, "damping": damping})
