"""The rules of SGD, RMSprop, Adagrad, Adam and AdamW, equal to those of torch.optim.

Rates are kept as rate × step size, so a learning rate of zero divides nothing and schedules keep
torch's meaning.
"""

from collections.abc import Sequence
from functools import cache

from sympy import log
from torch import Tensor

from flowopt.classic.checks import check_below_one, check_betas, check_not_negative
from flowopt.classic.method import AT_ONCE, Method, Rule, decayed, formulas, held, nonzero, same
from flowopt.errors import ConfigurationError
from flowopt.flows import adaptive, gradient, moments, momentum
from flowopt.flows.decay import with_decoupled_decay
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, Term, g, symbol, theta

lr, mu, dampening = map(symbol, ("lr", "momentum", "dampening"))
memory, gain = momentum.memory, momentum.gain
alpha, beta1, beta2 = map(symbol, ("alpha", "beta1", "beta2"))
rate = momentum.rate
m, v = momentum.m, adaptive.v

DAMPENED_MOMENTUM = Equations(
    Term("M", drift={m: rate * (gain * (1 - dampening) * g - m)}),
    Term("A", drift={theta: -m}),
    # torch takes the first gradient whole: after one step m is (1 − memory)·gain·g.
    start={m: gain * dampening * (1 - memory) / memory * g},
    reference="torch.optim.SGD with dampening",
)


@cache
def _sgd_rule(has_momentum: bool, dampened: bool, nesterov: bool, decay: bool) -> Rule:
    if not has_momentum:
        equations, extra = decayed(gradient.GRADIENT_FLOW, decay)
        return Rule("sgd", equations, held("A", euler=decay), lr, extra, frozenset())
    # With the gain, lr and μ may both change from step to step as in torch.
    table = formulas(rate=-log(mu), gain=1 / (1 - mu))
    base = momentum.MOMENTUM_EMA
    if nesterov:
        base, table = momentum.NESTEROV_EMA, {**table, "memory": mu}
    elif dampened:
        base, table = DAMPENED_MOMENTUM, {**table, "memory": mu, "dampening": dampening}
    equations, extra = decayed(base, decay)
    scheme = held("MA", euler=nesterov and decay)
    return Rule("sgd", equations, scheme, lr, {**table, **extra}, frozenset({"rate"}))


def sgd(
    *,
    lr: float | Tensor = 1e-3,
    momentum: float | Tensor = 0.0,
    dampening: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    nesterov: bool = False,
) -> Method:
    """Stochastic gradient descent: gradient flow, or momentum as a moving average.

    Args:
        lr: Learning rate.
        momentum: μ in [0, 1).
        dampening: Share of the gradient that the momentum leaves out.
        weight_decay: λ of an L2 penalty ½ λ|θ|².
        nesterov: Whether the direction looks ahead.

    Raises:
        ConfigurationError: A value is out of range, in torch's words.
    """
    check_not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
    check_below_one(momentum=momentum)
    if nesterov and (not nonzero(momentum) or nonzero(dampening)):
        raise ConfigurationError("Nesterov momentum requires a momentum and zero dampening")
    rule = _sgd_rule(nonzero(momentum), nonzero(dampening), nesterov, nonzero(weight_decay))
    return Method(
        rule,
        {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay},
    )


@cache
def _rmsprop_rule(has_momentum: bool, centered: bool, decay: bool) -> Rule:
    base = adaptive.CENTRED_RMSPROP if centered else adaptive.RMSPROP
    word = "VCA" if centered else "VA"
    table = formulas(square_rate=-log(alpha), **same("eps"))
    per_step = {"square_rate"}
    if has_momentum:
        *averages, move = base.terms
        direction = -move.drift[theta]
        average = Term("M", drift={m: rate * (gain * direction - m)})
        base = base.replace(terms=(*averages, average, Term("A", drift={theta: -m})), energies={})
        word = word.replace("A", "MA")
        table |= formulas(rate=-log(mu), gain=1 / (1 - mu))
        per_step = {"square_rate", "rate"}
    equations, extra = decayed(base, decay)
    scheme = held(word, euler=decay and not has_momentum)
    return Rule("rmsprop", equations, scheme, lr, {**table, **extra}, frozenset(per_step))


def rmsprop(
    *,
    lr: float | Tensor = 1e-2,
    alpha: float | Tensor = 0.99,
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    momentum: float | Tensor = 0.0,
    centered: bool = False,
) -> Method:
    """RMSprop, plain or centred, with or without momentum.

    Args:
        lr: Learning rate.
        alpha: Decay of the average of squares, in [0, 1).
        eps: Added to the root.
        weight_decay: λ of an L2 penalty ½ λ|θ|².
        momentum: μ in [0, 1).
        centered: Whether the average gradient is subtracted from the squares.

    Raises:
        ConfigurationError: A value is out of range, in torch's words.
    """
    check_not_negative(lr=lr, eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
    check_below_one(alpha=alpha, momentum=momentum)
    rule = _rmsprop_rule(nonzero(momentum), centered, nonzero(weight_decay))
    settings = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum}
    return Method(rule, {**settings, "weight_decay": weight_decay})


@cache
def _adagrad_rule(ages: bool, starts: bool, decay: bool) -> Rule:
    base = adaptive.AGEING_ADAGRAD if ages else adaptive.ADAGRAD
    table = formulas(accumulation=1, **same("eps"))
    if ages:
        table |= {"ageing": symbol("lr_decay")}
    if starts:
        initial = symbol("initial_accumulator_value")
        base = base.replace(start={**base.start, v: initial}, later_start=None)
        table |= {initial.name: initial}
    equations, extra = decayed(base, decay)
    scheme = held("VAT" if ages else "VA", euler=decay)
    return Rule("adagrad", equations, scheme, lr, {**table, **extra}, frozenset({"accumulation"}))


def adagrad(
    *,
    lr: float | Tensor = 1e-2,
    lr_decay: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    initial_accumulator_value: float | Tensor = 0.0,
    eps: float | Tensor = 1e-10,
) -> Method:
    """AdaGrad.

    Args:
        lr: Learning rate.
        lr_decay: The n-th step, from 0, is divided by 1 + n·lr_decay.
        weight_decay: λ of an L2 penalty ½ λ|θ|².
        initial_accumulator_value: Sum of squares at the start.
        eps: Added to the root.

    Raises:
        ConfigurationError: A value is out of range, in torch's words.
    """
    check_not_negative(
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    rule = _adagrad_rule(
        nonzero(lr_decay), nonzero(initial_accumulator_value), nonzero(weight_decay)
    )
    return Method(
        rule,
        {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        },
    )


@cache
def _adam_rule(decay: bool, decoupled: bool, amsgrad: bool) -> Rule:
    table = formulas(momentum_rate=-log(beta1), square_rate=-log(beta2), **same("eps"))
    per_step = {"momentum_rate", "square_rate"}
    equations, word, extra, maps = adaptive.ADAM, "TMVA", {}, None
    if amsgrad:
        equations, word = moments.AMSGRAD, "TMVXA"
        table |= formulas(tracking=AT_ONCE)
        per_step |= {"tracking"}
    if decay and decoupled:
        equations, extra = with_decoupled_decay(equations), same("weight_decay")
        word, maps = word.replace("A", "WA"), {"W": "euler"}
    elif decay:
        equations, extra = decayed(equations, decay)
    name = "adamw" if decoupled else "amsgrad" if amsgrad else "adam"
    scheme = Splitting(word, maps)
    return Rule(name, equations, scheme, lr, {**table, **extra}, frozenset(per_step))


def _adam(
    lr: float | Tensor,
    betas: Sequence[float],
    eps: float | Tensor,
    weight_decay: float | Tensor,
    amsgrad: bool,
    decoupled: bool,
) -> Method:
    check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    check_betas(betas)
    settings = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps}
    rule = _adam_rule(nonzero(weight_decay), decoupled, amsgrad)
    return Method(rule, {**settings, "weight_decay": weight_decay})


def adam(
    *,
    lr: float | Tensor = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.0,
    amsgrad: bool = False,
) -> Method:
    """Adam with bias correction.

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squares, each in [0, 1).
        eps: Added to the root.
        weight_decay: λ of an L2 penalty ½ λ|θ|².
        amsgrad: Whether the average of squares is not to fall.

    Raises:
        ConfigurationError: A value is out of range, in torch's words.
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, False)


def adamw(
    *,
    lr: float | Tensor = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 1e-2,
    amsgrad: bool = False,
) -> Method:
    """Adam with decoupled weight decay.

    Args:
        lr: Learning rate.
        betas: Decay of the averages of gradients and of squares, each in [0, 1).
        eps: Added to the root.
        weight_decay: λ; at each step θ is first multiplied by 1 − lr·λ.
        amsgrad: Whether the average of squares is not to fall.

    Raises:
        ConfigurationError: A value is out of range, in torch's words.
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, True)
