"""Rules that sample: stochastic-gradient Langevin dynamics and its relatives.

Temperature is in units of the loss as given: for a mean loss over N data, 1/N samples the
posterior.
"""

from functools import cache

from sympy import log, sqrt
from torch import Tensor

from flowopt.classic.checks import check_below_one, check_not_negative
from flowopt.classic.method import Method, Rule, formulas, same
from flowopt.flows.adaptive import AVERAGE_SQUARE, eps, v
from flowopt.flows.langevin import LANGEVIN, OVERDAMPED_LANGEVIN, temperature
from flowopt.flows.thermostat import xi
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, Term, g, p, symbol, theta, total

lr = symbol("lr")
diffusion = symbol("diffusion")

SGNHT = Equations(
    Term("C", drift={p: -xi * p}),
    Term("B", drift={p: -g}),
    Term("D", drift={}, diffusion={p: sqrt(2 * diffusion * temperature)}),
    Term("A", drift={theta: p}),
    Term("E", drift={xi: total(p**2 - temperature) / total(1)}),
    scalars=[xi],
    start={xi: diffusion},
    reference="Ding et al. 2014, NeurIPS 27, algorithm 2",
)

PRECONDITIONER = 1 / (sqrt(v) + eps)
PSGLD = Equations(
    AVERAGE_SQUARE,
    Term(
        "A",
        drift={theta: -PRECONDITIONER * g},
        diffusion={theta: sqrt(2 * temperature * PRECONDITIONER)},
    ),
    reference="Li, Chen, Carlson & Carin 2016, arXiv 1512.07666, algorithm 1, without Γ",
)


@cache
def _sgld_rule() -> Rule:
    shared = same("temperature")
    return Rule("sgld", OVERDAMPED_LANGEVIN, Splitting("A"), lr, shared, frozenset())


def sgld(*, lr: float | Tensor = 1e-3, temperature: float | Tensor) -> Method:
    """Stochastic-gradient Langevin dynamics, θ₊ = θ − lr ∇L + √(2 lr T)·N(0, 1).

    Args:
        lr: Learning rate, ε/2 of the paper.
        temperature: T.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Welling & Teh 2011, ICML 28, 681, equation 4.
    """
    check_not_negative(lr=lr, temperature=temperature)
    return Method(_sgld_rule(), {"lr": lr, "temperature": temperature})


@cache
def _sghmc_rule() -> Rule:
    table = {"friction": symbol("momentum_decay"), **same("temperature")}
    scheme = Splitting("OBA", maps={"O": "euler"})
    return Rule("sghmc", LANGEVIN, scheme, sqrt(lr), table, frozenset({"friction"}))


def sghmc(
    *,
    lr: float | Tensor = 1e-3,
    momentum_decay: float | Tensor = 0.1,
    temperature: float | Tensor,
) -> Method:
    """Stochastic-gradient Hamiltonian Monte Carlo, in the paper's velocity v = √lr·p.

    v₊ = (1 − α)v − lr ∇L + √(2 α lr T)·N(0, 1),  θ₊ = θ + v₊.

    Args:
        lr: η of the paper.
        momentum_decay: α, share of the velocity that a step loses.
        temperature: T.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Chen, Fox & Guestrin 2014, arXiv 1402.4102, equation 15, with no estimate of the
        gradient's noise.
    """
    check_not_negative(lr=lr, momentum_decay=momentum_decay, temperature=temperature)
    settings = {"lr": lr, "momentum_decay": momentum_decay, "temperature": temperature}
    return Method(_sghmc_rule(), settings)


@cache
def _sgnht_rule() -> Rule:
    scheme = Splitting("CBDAE", maps={"C": "euler"})
    return Rule("sgnht", SGNHT, scheme, lr, same("diffusion", "temperature"), frozenset())


def sgnht(
    *,
    lr: float | Tensor = 1e-2,
    diffusion: float | Tensor = 1.0,
    temperature: float | Tensor,
) -> Method:
    """Stochastic-gradient Nosé–Hoover thermostat.

    p₊ = p − lr(ξp + ∇L) + √(2 A T lr)·N(0, 1),  θ₊ = θ + lr p₊,  ξ₊ = ξ + lr(|p₊|²/N − T).

    Args:
        lr: Step size h.
        diffusion: A, also ξ at the start.
        temperature: T, 1 in the paper.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Ding et al. 2014, NeurIPS 27, algorithm 2.
    """
    check_not_negative(lr=lr, diffusion=diffusion, temperature=temperature)
    settings = {"lr": lr, "diffusion": diffusion, "temperature": temperature}
    return Method(_sgnht_rule(), settings)


@cache
def _psgld_rule() -> Rule:
    table = formulas(square_rate=-log(symbol("alpha")), **same("eps", "temperature"))
    return Rule("psgld", PSGLD, Splitting("VA"), lr, table, frozenset({"square_rate"}))


def psgld(
    *,
    lr: float | Tensor = 1e-3,
    alpha: float | Tensor = 0.99,
    eps: float | Tensor = 1e-5,
    temperature: float | Tensor,
) -> Method:
    """Preconditioned SGLD, θ₊ = θ − lr G∇L + √(2 lr T G)·N(0, 1), G = 1/(√v + eps) as RMSprop's.

    Args:
        lr: Learning rate, ε/2 of the paper.
        alpha: Decay of the average of squares, in [0, 1).
        eps: λ of the paper, added to the root.
        temperature: T.

    Raises:
        ConfigurationError: A value is out of range.

    Reference:
        Li, Chen, Carlson & Carin 2016, arXiv 1512.07666, algorithm 1.
    """
    check_not_negative(lr=lr, alpha=alpha, eps=eps, temperature=temperature)
    check_below_one(alpha=alpha)
    return Method(_psgld_rule(), {"lr": lr, "alpha": alpha, "eps": eps, "temperature": temperature})
