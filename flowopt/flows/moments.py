"""Relatives of Adam: other averages of squares, other corrections of their start."""

from sympy import Abs, Expr, Max, exp, sign, sqrt
from sympy.codegen.cfunctions import expm1
from torch import Tensor

from flowopt.flows.adaptive import (
    ADAM_SOON,
    AGED_SQUARE,
    AVERAGE_SQUARE,
    EARLY,
    age,
    eps,
    m,
    momentum_rate,
    square_rate,
    u_m,
    u_v,
    v,
)
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.language import LOSS, Equations, LaterStart, Term, g, symbol, t, theta

tracking, floor, largest = symbol("tracking"), symbol("floor"), symbol("largest")

AGES = Term("T", drift={u_m: momentum_rate * (1 - u_m), u_v: square_rate * (1 - u_v)})
AVERAGE = Term("M", drift={m: momentum_rate * (g - m)})


def corrected(square: Expr) -> Term:
    """Adam's motion on its average of gradients and a given average of squares."""
    return Term("A", drift={theta: -(m / u_m) / (sqrt(square) / sqrt(u_v) + eps)})


def corrected_energy(square: Expr) -> Expr:
    """Adam's energy, of which `corrected` is the gradient in m."""
    return momentum_rate * LOSS + sqrt(u_v) / u_m * m**2 / (2 * (sqrt(square) + eps * sqrt(u_v)))


AMSGRAD = Equations(
    AGES,
    AVERAGE,
    AVERAGE_SQUARE,
    Term("X", drift={largest: tracking * Max(0, v - largest)}),
    corrected(largest),
    scalars=[u_m, u_v],
    energies={"lyapunov": corrected_energy(largest)},
    reference="Reddi, Kale & Kumar 2018, arXiv 1904.09237, algorithm 2; bias correction as in "
    "torch.optim",
    # Where it is at infinite tracking: what follows at a finite rate lags only at first.
    later_start=LaterStart(ADAM_SOON.time, {**ADAM_SOON.values, largest: AGED_SQUARE}),
)

ADAMAX = Equations(
    Term("T", drift={u_m: momentum_rate * (1 - u_m)}),
    AVERAGE,
    Term("V", drift={largest: -square_rate * largest}),
    Term("X", drift={largest: tracking * Max(0, Abs(g) + eps - largest)}),
    Term("A", drift={theta: -(m / u_m) / largest}),
    scalars=[u_m],
    reference="Kingma & Ba 2015, arXiv 1412.6980, algorithm 2; eps as in torch.optim",
    later_start=LaterStart(
        EARLY / momentum_rate,
        {
            u_m: ADAM_SOON.values[u_m],
            m: ADAM_SOON.values[m],
            largest: Abs(g) + eps,
        },
    ),
)

YOGI = Equations(
    AVERAGE,
    Term("V", drift={v: square_rate * sign(g**2 - v) * g**2}),
    Term("A", drift={theta: -m / (sqrt(v) + eps)}),
    start={v: floor},
    energies={"lyapunov": momentum_rate * LOSS + m**2 / (2 * (sqrt(v) + eps))},
    reference="Zaheer, Reddi, Sachan, Kale & Kumar 2018, NeurIPS 31, algorithm 2",
)

ADABELIEF = Equations(
    AGES,
    AVERAGE,
    Term("V", drift={v: square_rate * ((g - m) ** 2 + floor - v)}),
    corrected(v),
    scalars=[u_m, u_v],
    energies={"lyapunov": corrected_energy(v)},
    reference="Zhuang et al. 2020, arXiv 2010.07468, algorithm 2",
    later_start=LaterStart(
        ADAM_SOON.time,
        {**ADAM_SOON.values, v: (1 - exp(-square_rate * t)) * (g**2 + floor)},
    ),
)

RECTIFICATION = sqrt(1 - age / expm1(age))

RADAM = Equations(
    Term("T", drift={**AGES.drift, age: square_rate}),
    AVERAGE,
    AVERAGE_SQUARE,
    Term("A", drift={theta: -RECTIFICATION * (m / u_m) * sqrt(u_v) / (sqrt(v) + eps)}),
    scalars=[u_m, u_v, age],
    reference="Liu et al. 2020, arXiv 1908.03265, algorithm 2, at vanishing step size",
    later_start=LaterStart(ADAM_SOON.time, {**ADAM_SOON.values, age: square_rate * t}),
)


def amsgrad(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    tracking: float | Tensor = 1000.0,
    eps: float | Tensor = 1e-8,
) -> EquationFlow:
    """AMSGrad: Adam whose average of squares does not fall.

    θ' = −(m/u_m)/(√(w/u_v) + eps),  w' = κ max(0, v − w), the rest as Adam's.

    Word "TMVXA" with κ infinite, h = lr, a·h = −ln β₁ and b·h = −ln β₂ is torch's
    Adam(amsgrad=True).

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time.
        square_rate: b, at which the average of squares forgets, 1/time.
        tracking: κ, at which w follows a larger v, 1/time; infinite in the published rule.
        eps: Added to the root, unit of the gradient.

    Reference:
        Reddi, Kale & Kumar 2018, arXiv 1904.09237, algorithm 2.
    """
    return EquationFlow(
        AMSGRAD,
        name="amsgrad",
        momentum_rate=momentum_rate,
        square_rate=square_rate,
        tracking=tracking,
        eps=eps,
    )


def adamax(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    tracking: float | Tensor = 1000.0,
    eps: float | Tensor = 1e-8,
) -> EquationFlow:
    """Adamax: Adam with the largest gradient of late in place of the root of the squares.

    θ' = −(m/u_m)/w,  w' = −b w + κ max(0, |∇L| + eps − w),  m and u_m as Adam's.

    Word "TMVXA" with κ infinite, h = lr, a·h = −ln β₁ and b·h = −ln β₂ is torch's Adamax.

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time.
        square_rate: b, at which the largest gradient is forgotten, 1/time.
        tracking: κ, at which w follows a larger gradient, 1/time; infinite in the published rule.
        eps: Added to the gradient's size.

    Reference:
        Kingma & Ba 2015, arXiv 1412.6980, algorithm 2.
    """
    return EquationFlow(
        ADAMAX,
        name="adamax",
        momentum_rate=momentum_rate,
        square_rate=square_rate,
        tracking=tracking,
        eps=eps,
    )


def yogi(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    eps: float | Tensor = 1e-3,
    floor: float | Tensor = 1e-6,
) -> EquationFlow:
    """Yogi: squares that approach the latest one at a speed that does not depend on the distance.

    θ' = −m/(√v + eps),  m' = a(∇L − m),  v' = b sign(∇L² − v) ∇L²,  v = floor at the start.

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time.
        square_rate: b, 1/time.
        eps: Added to the root, unit of the gradient.
        floor: v at the start, unit of the squared gradient.

    Reference:
        Zaheer, Reddi, Sachan, Kale & Kumar 2018, NeurIPS 31, algorithm 2.
    """
    return EquationFlow(
        YOGI,
        name="yogi",
        momentum_rate=momentum_rate,
        square_rate=square_rate,
        eps=eps,
        floor=floor,
    )


def adabelief(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    eps: float | Tensor = 1e-8,
    floor: float | Tensor = 1e-5,
) -> EquationFlow:
    """AdaBelief: Adam with the variance of the gradient in place of its square.

    v' = b((∇L − m)² + floor − v), the rest as Adam's.

    Word "TMVA" with h = lr, a·h = −ln β₁, b·h = −ln β₂ and floor = ε/(1 − β₂) is the published
    rule.

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time.
        square_rate: b, at which the average of squares forgets, 1/time.
        eps: Added to the root, unit of the gradient.
        floor: Below which v does not settle, unit of the squared gradient.

    Reference:
        Zhuang et al. 2020, arXiv 2010.07468, algorithm 2.
    """
    return EquationFlow(
        ADABELIEF,
        name="adabelief",
        momentum_rate=momentum_rate,
        square_rate=square_rate,
        eps=eps,
        floor=floor,
    )


def radam(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    eps: float | Tensor = 1e-8,
) -> EquationFlow:
    """RAdam: Adam that starts slowly, by as much as few squares say little.

    θ' = −r (m/u_m)·√u_v/(√v + eps),  r² = 1 − s/(exp(s) − 1),  s' = b, the rest as Adam's.

    This is the published rule at vanishing step size, r² = 1 − bt/(exp(bt) − 1); the rule itself,
    which counts steps, is `flowopt.classic.radam`.

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time.
        square_rate: b, at which the average of squares forgets, 1/time.
        eps: Added to the root, unit of the gradient.

    Reference:
        Liu et al. 2020, arXiv 1908.03265, algorithm 2.
    """
    return EquationFlow(
        RADAM, name="radam", momentum_rate=momentum_rate, square_rate=square_rate, eps=eps
    )
