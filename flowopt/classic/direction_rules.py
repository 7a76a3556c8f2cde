"""Rules that follow the direction of a gradient or of its average."""

from collections.abc import Sequence
from functools import cache

from sympy import log
from torch import Tensor

from flowopt.classic.checks import check_below_one, check_betas, check_not_negative
from flowopt.classic.method import Method, Rule, formulas, held, nonzero, same
from flowopt.errors import ConfigurationError
from flowopt.flows.decay import weight_decay as decay_rate
from flowopt.flows.direction import CLIPPED_GRADIENT, LION, NORMALISED_GRADIENT, SIGN_GRADIENT
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, Term, symbol, theta

lr = symbol("lr")


@cache
def _rule(name: str, equations: Equations, *shared: str) -> Rule:
    return Rule(name, equations, Splitting("A"), lr, same(*shared), frozenset())


def normalised_gd(*, lr: float | Tensor = 1e-2, eps: float | Tensor = 1e-12) -> Method:
    """Normalised gradient descent, steps of length lr.

    Args:
        lr: Length of a step.
        eps: Added to the norm of the gradient over all parameters of a block.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Cortés 2006, Automatica 42(11), 1993.
    """
    check_not_negative(lr=lr, eps=eps)
    return Method(_rule("normalised_gd", NORMALISED_GRADIENT, "eps"), {"lr": lr, "eps": eps})


def clipped_gd(*, lr: float | Tensor = 1e-2, threshold: float | Tensor = 1.0) -> Method:
    """Gradient descent with the gradient clipped to a largest norm.

    Args:
        lr: Learning rate.
        threshold: Largest norm of the gradient over all parameters of a block.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063, algorithm 1.
    """
    check_not_negative(lr=lr, threshold=threshold)
    rule = _rule("clipped_gd", CLIPPED_GRADIENT, "threshold")
    return Method(rule, {"lr": lr, "threshold": threshold})


def sign_sgd(*, lr: float | Tensor = 1e-3) -> Method:
    """signSGD, each coordinate by lr against the sign of its gradient.

    Args:
        lr: Learning rate.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, arXiv 1802.04434, algorithm 1.
    """
    check_not_negative(lr=lr)
    return Method(_rule("sign_sgd", SIGN_GRADIENT), {"lr": lr})


@cache
def _lion_rule(name: str, decay: bool) -> Rule:
    beta1, beta2 = symbol("beta1"), symbol("beta2")
    # The average after its update with the gradient takes the place of the one before.
    table = formulas(rate=-log(beta2), memory=beta1 / beta2)
    equations, extra = LION, {}
    if decay:
        average, move = LION.terms
        moved = Term("A", drift={theta: move.drift[theta] - decay_rate * theta})
        equations = LION.replace(terms=(average, moved), energies={})
        extra = same("weight_decay")
    scheme = held("MA", euler=decay)
    return Rule(name, equations, scheme, lr, {**table, **extra}, frozenset({"rate"}))


def signum(*, lr: float | Tensor = 1e-3, momentum: float | Tensor = 0.9) -> Method:
    """Signum, signSGD of a moving average: Lion with both betas equal.

    Args:
        lr: Learning rate.
        momentum: β of the average, in (0, 1).

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Bernstein, Wang, Azizzadenesheli & Anandkumar 2018, arXiv 1802.04434, algorithm 2.
    """
    check_not_negative(lr=lr, momentum=momentum)
    check_below_one(momentum=momentum)
    _check_remembers("momentum", momentum)
    settings = {"lr": lr, "beta1": momentum, "beta2": momentum}
    return Method(_lion_rule("signum", False), settings)


def lion(
    *,
    lr: float | Tensor = 1e-4,
    betas: Sequence[float] = (0.9, 0.99),
    weight_decay: float | Tensor = 0.0,
) -> Method:
    """Lion, steps by the sign of an average that the fresh gradient enters twice.

    Args:
        lr: Learning rate.
        betas: Share of the average in the direction, in [0, 1), and its decay, in (0, 1).
        weight_decay: λ, decoupled: it adds −lr·λ·θ to a step.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Chen et al. 2023, arXiv 2302.06675, algorithm 2.
    """
    check_not_negative(lr=lr, weight_decay=weight_decay)
    check_betas(betas)
    _check_remembers("beta parameter at index 1", betas[1])
    settings = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "weight_decay": weight_decay}
    return Method(_lion_rule("lion", nonzero(weight_decay)), settings)


def _check_remembers(name: str, value: float | Tensor) -> None:
    """Raises `ConfigurationError` for an average without memory, which these rules divide by."""
    if not nonzero(value):
        raise ConfigurationError(f"Invalid {name}: {value}; expected a number above 0, or sign_sgd")
