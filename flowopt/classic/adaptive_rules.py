"""Relatives of Adam and Adagrad: AMSGrad, Adamax, NAdam, RAdam, Adadelta, Yogi, AdaBelief."""

from collections.abc import Sequence
from functools import cache

from sympy import Max, exp, log, sign, sqrt
from torch import Tensor

from flowopt.classic.checks import check_below_one, check_betas, check_not_negative
from flowopt.classic.method import AT_ONCE, Method, Rule, decayed, formulas, held, nonzero, same
from flowopt.classic.rules import adam
from flowopt.flows.adaptive import AVERAGE_SQUARE, eps, m, square_rate, u_m, u_v, v
from flowopt.flows.moments import ADABELIEF, ADAMAX, AGES, AVERAGE, YOGI
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, Term, g, symbol, theta

lr, beta1, beta2, rho = map(symbol, ("lr", "beta1", "beta2", "rho"))
turn, steps, longest = symbol("turn"), symbol("steps"), symbol("longest")
memory, product = symbol("memory"), symbol("product")
warming, cooling, next_share = symbol("warming"), symbol("cooling"), symbol("next_share")
change = symbol("change")

RATES = formulas(momentum_rate=-log(beta1), square_rate=-log(beta2))
PER_STEP = frozenset({"momentum_rate", "square_rate"})

# The n-th step, from 1, multiplies the average by β₁(1 − w/2), w = 0.96^{n·momentum_decay}, and
# `product` is that of all these factors. They belong to steps, not to time.
FACTOR = memory * (1 - warming / 2)
NEXT_FACTOR = memory * (1 - next_share * warming / 2)
NADAM = Equations(
    Term("T", drift={u_v: square_rate * (1 - u_v), warming: -cooling * warming}),
    Term("P", drift={product: turn * log(FACTOR) * product}),
    AVERAGE,
    AVERAGE_SQUARE,
    Term(
        "A",
        drift={
            theta: -(
                NEXT_FACTOR / (1 - NEXT_FACTOR * product) * m + (1 - FACTOR) / (1 - product) * g
            )
            / (sqrt(v) / sqrt(u_v) + eps)
        },
    ),
    scalars=[u_v, warming, product],
    start={warming: 1, product: 1},
    reference="Dozat 2016, Incorporating Nesterov momentum into Adam, ICLR workshop",
)

# ρ, the length of the average so far in steps, and how far it lets the correction go.
LENGTH = longest - 2 * steps * (1 - u_v) / u_v
RECTIFIED = (1 + sign(LENGTH - 5)) / 2
BOUND, LIMIT = Max(5, LENGTH), Max(5, longest)
RECTIFICATION = sqrt((BOUND - 4) * (BOUND - 2) * LIMIT / ((LIMIT - 4) * (LIMIT - 2) * BOUND))
RADAM = Equations(
    Term("T", drift={**AGES.drift, steps: turn}),
    AVERAGE,
    AVERAGE_SQUARE,
    Term(
        "A",
        drift={
            theta: -(m / u_m)
            * (RECTIFIED * RECTIFICATION * sqrt(u_v) / (sqrt(v) + eps) + 1 - RECTIFIED)
        },
    ),
    scalars=[u_m, u_v, steps],
    reference="Liu et al. 2020, arXiv 1908.03265, algorithm 2; eps as in torch.optim",
)

# One letter: the average of squared changes takes in the change that it made itself.
CHANGE = sqrt(change + eps) / sqrt(v + eps) * g
ADADELTA = Equations(
    AVERAGE_SQUARE,
    Term("A", drift={theta: -CHANGE, change: square_rate * (CHANGE**2 - change)}),
    reference="Zeiler 2012, arXiv 1212.5701, algorithm 1",
)


def _adam_like(
    rule: Rule,
    lr: float | Tensor,
    betas: Sequence[float],
    eps: float | Tensor,
    **more: float | Tensor,
) -> Method:
    check_not_negative(lr=lr, eps=eps, **more)
    check_betas(betas)
    return Method(rule, {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, **more})


def amsgrad(
    *,
    lr: float | Tensor = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
) -> Method:
    """AMSGrad, torch's Adam(amsgrad=True).

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squares, each in [0, 1).
        eps: Added to the root.
        weight_decay: λ of an L2 penalty ½ λ|θ|².

    Raises:
        ConfigurationError: A value is out of range, in torch's words.

    Reference:
        Reddi, Kale & Kumar 2018, arXiv 1904.09237, algorithm 2.
    """
    return adam(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=True)


@cache
def _adamax_rule(decay: bool) -> Rule:
    equations, extra = decayed(ADAMAX, decay)
    table = {**RATES, **formulas(**same("eps"), tracking=AT_ONCE), **extra}
    return Rule("adamax", equations, Splitting("TMVXA"), lr, table, PER_STEP | {"tracking"})


def adamax(
    *,
    lr: float | Tensor = 2e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
) -> Method:
    """Adamax, Adam with the largest gradient of late.

    Args:
        lr: Learning rate.
        betas: Decay of the average of gradients and of the largest gradient, each in [0, 1).
        eps: Added to the size of each gradient.
        weight_decay: λ of an L2 penalty ½ λ|θ|².

    Raises:
        ConfigurationError: A value is out of range, in torch's words.

    Reference:
        Kingma & Ba 2015, arXiv 1412.6980, algorithm 2.
    """
    rule = _adamax_rule(nonzero(weight_decay))
    return _adam_like(rule, lr, betas, eps, weight_decay=weight_decay)


@cache
def _nadam_rule(decay: bool) -> Rule:
    equations, extra = decayed(NADAM, decay)
    fading = symbol("momentum_decay") * log(0.96)
    table = formulas(memory=beta1, turn=1, cooling=-fading, next_share=exp(fading), **same("eps"))
    per_step = PER_STEP | {"turn", "cooling"}
    return Rule(
        "nadam", equations, held("TPMVA", euler=decay), lr, {**RATES, **table, **extra}, per_step
    )


def nadam(
    *,
    lr: float | Tensor = 2e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    momentum_decay: float | Tensor = 4e-3,
) -> Method:
    """NAdam, Adam that looks ahead, with a momentum that warms up.

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squares, each in [0, 1).
        eps: Added to the root.
        weight_decay: λ of an L2 penalty ½ λ|θ|².
        momentum_decay: In the n-th step, from 1, μ = β₁(1 − 0.96^{n·momentum_decay}/2).

    Raises:
        ConfigurationError: A value is out of range, in torch's words.

    Reference:
        Dozat 2016, Incorporating Nesterov momentum into Adam, ICLR workshop.
    """
    rule, more = _nadam_rule(nonzero(weight_decay)), {"momentum_decay": momentum_decay}
    return _adam_like(rule, lr, betas, eps, weight_decay=weight_decay, **more)


@cache
def _radam_rule(decay: bool) -> Rule:
    equations, extra = decayed(RADAM, decay)
    table = formulas(turn=1, longest=2 / (1 - beta2) - 1, **same("eps"))
    per_step = PER_STEP | {"turn"}
    return Rule("radam", equations, Splitting("TMVA"), lr, {**RATES, **table, **extra}, per_step)


def radam(
    *,
    lr: float | Tensor = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
) -> Method:
    """RAdam, Adam whose first steps are those of momentum.

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squares, each in [0, 1).
        eps: Added to the root.
        weight_decay: λ of an L2 penalty ½ λ|θ|².

    Raises:
        ConfigurationError: A value is out of range, in torch's words.

    Reference:
        Liu et al. 2020, arXiv 1908.03265, algorithm 2.
    """
    rule = _radam_rule(nonzero(weight_decay))
    return _adam_like(rule, lr, betas, eps, weight_decay=weight_decay)


@cache
def _adadelta_rule(decay: bool) -> Rule:
    equations, extra = decayed(ADADELTA, decay)
    table = {**formulas(square_rate=1 - rho, **same("eps")), **extra}
    scheme = Splitting("VA", maps={"V": "euler", "A": "euler"})
    return Rule("adadelta", equations, scheme, lr, table, frozenset({"square_rate"}))


def adadelta(
    *,
    lr: float | Tensor = 1.0,
    rho: float | Tensor = 0.9,
    eps: float | Tensor = 1e-6,
    weight_decay: float | Tensor = 0.0,
) -> Method:
    """Adadelta, steps in the unit of the parameters.

    Args:
        lr: Factor of the published step.
        rho: Decay of the averages of squares, in [0, 1).
        eps: Added under the roots.
        weight_decay: λ of an L2 penalty ½ λ|θ|².

    Raises:
        ConfigurationError: A value is out of range, in torch's words.

    Reference:
        Zeiler 2012, arXiv 1212.5701, algorithm 1.
    """
    check_not_negative(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
    check_below_one(rho=rho)
    settings = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
    return Method(_adadelta_rule(nonzero(weight_decay)), settings)


@cache
def _yogi_rule() -> Rule:
    table = formulas(
        momentum_rate=-log(beta1),
        square_rate=1 - beta2,
        floor=symbol("initial_accumulator_value"),
        **same("eps"),
    )
    return Rule("yogi", YOGI, Splitting("MVA"), lr, table, PER_STEP)


def yogi(
    *,
    lr: float | Tensor = 1e-2,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-3,
    initial_accumulator_value: float | Tensor = 1e-6,
) -> Method:
    """Yogi, additive control of Adam's average of squares; no bias correction, as published.

    Args:
        lr: Learning rate.
        betas: Decay of the average of gradients, and 1 − share of the squares, each in [0, 1).
        eps: Added to the root.
        initial_accumulator_value: Average of squares at the start.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Zaheer, Reddi, Sachan, Kale & Kumar 2018, NeurIPS 31, algorithm 2.
    """
    more = {"initial_accumulator_value": initial_accumulator_value}
    return _adam_like(_yogi_rule(), lr, betas, eps, **more)


@cache
def _adabelief_rule() -> Rule:
    table = {**RATES, **formulas(floor=symbol("eps") / (1 - beta2), **same("eps"))}
    return Rule("adabelief", ADABELIEF, Splitting("TMVA"), lr, table, PER_STEP)


def adabelief(
    *,
    lr: float | Tensor = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
) -> Method:
    """AdaBelief, Adam with the variance of the gradient.

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squared deviations, each in [0, 1).
        eps: Added to the root, and in each step to the average of squared deviations.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Zhuang et al. 2020, arXiv 2010.07468, algorithm 2.
    """
    return _adam_like(_adabelief_rule(), lr, betas, eps)
