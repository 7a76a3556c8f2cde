"""Flows that scale each coordinate by the history of its gradient."""

from sympy import Rational, exp, sqrt
from torch import Tensor

from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.symbolic.language import (
    LOSS,
    STEP_SIZE,
    Equations,
    LaterStart,
    Term,
    g,
    symbol,
    t,
    theta,
)

m, v, c = symbol("m"), symbol("v"), symbol("c")
u_m, u_v, age = symbol("u_m"), symbol("u_v"), symbol("age")
momentum_rate, square_rate = symbol("momentum_rate"), symbol("square_rate")
accumulation, ageing, eps = symbol("accumulation"), symbol("ageing"), symbol("eps")

# When singular equations may be begun, in units of the fastest rate's time; of AdaGrad, whose
# accumulation κ is time over squared length, in units of κ. RMSProp and AdaGrad move as √t from
# rest, at a speed without bound: they are begun after a first step, if its size is known.
EARLY = Rational(1, 10**12)
AGED_SQUARE = (1 - exp(-square_rate * t)) * g**2

AVERAGE_SQUARE = Term("V", drift={v: square_rate * (g**2 - v)})

RMSPROP = Equations(
    AVERAGE_SQUARE,
    Term("A", drift={theta: -g / (sqrt(v) + eps)}),
    energies={"loss": LOSS},
    reference="Tieleman & Hinton 2012, Coursera lecture 6.5",
    later_start=LaterStart(EARLY / square_rate + STEP_SIZE, {v: AGED_SQUARE}),
)

CENTRED_RMSPROP = Equations(
    AVERAGE_SQUARE,
    Term("C", drift={c: square_rate * (g - c)}),
    Term("A", drift={theta: -g / (sqrt(v - c**2) + eps)}),
    energies={"loss": LOSS},
    reference="Graves 2013, arXiv 1308.0850, equations 38-41",
    later_start=LaterStart(
        EARLY / square_rate + STEP_SIZE,
        {v: AGED_SQUARE, c: (1 - exp(-square_rate * t)) * g},
    ),
)

ADAGRAD_SOON = LaterStart(EARLY * accumulation + STEP_SIZE, {v: accumulation * t * g**2})
ADAGRAD = Equations(
    Term("V", drift={v: accumulation * g**2}),
    Term("A", drift={theta: -g / (sqrt(v) + eps)}),
    energies={"loss": LOSS},
    reference="Duchi, Hazan & Singer 2011, JMLR 12, 2121",
    later_start=ADAGRAD_SOON,
)

AGEING_ADAGRAD = Equations(
    Term("V", drift={v: accumulation * g**2}),
    Term("A", drift={theta: -g / (age * (sqrt(v) + eps))}),
    Term("T", drift={age: ageing * accumulation}),
    scalars=[age],
    start={age: 1},
    energies={"loss": LOSS},
    reference="Duchi, Hazan & Singer 2011, JMLR 12, 2121; decay of the step as in torch.optim",
    later_start=LaterStart(
        ADAGRAD_SOON.time,
        {**ADAGRAD_SOON.values, age: 1 + ageing * accumulation * t},
    ),
)

ADAM_SOON = LaterStart(
    EARLY / momentum_rate,
    {
        u_m: 1 - exp(-momentum_rate * t),
        u_v: 1 - exp(-square_rate * t),
        m: (1 - exp(-momentum_rate * t)) * g,
        v: AGED_SQUARE,
    },
)

# −θ'·m
ADAM_MOTION = sqrt(u_v) / u_m * m**2 / (sqrt(v) + eps * sqrt(u_v))

ADAM = Equations(
    Term("T", drift={u_m: momentum_rate * (1 - u_m), u_v: square_rate * (1 - u_v)}),
    Term("M", drift={m: momentum_rate * (g - m)}),
    AVERAGE_SQUARE,
    Term("A", drift={theta: -(m / u_m) / (sqrt(v) / sqrt(u_v) + eps)}),
    scalars=[u_m, u_v],
    energies={"lyapunov": momentum_rate * LOSS + ADAM_MOTION / 2},
    # The rate without what only the growth of v and of the corrections adds.
    dissipations={"lyapunov": (momentum_rate - square_rate / 4) * ADAM_MOTION},
    reference="Kingma & Ba 2015, arXiv 1412.6980; as an ODE: Barakat & Bianchi 2021, "
    "SIAM J. Optim. 31(1), 244",
    later_start=ADAM_SOON,
)


def rmsprop(*, square_rate: float | Tensor = 1.0, eps: float | Tensor = 1e-8) -> EquationFlow:
    """RMSProp, θ' = −∇L/(√v + eps), v' = square_rate·(∇L² − v).

    Word "VA" with h = lr and square_rate·h = −ln α is torch's RMSprop. From rest it moves as √t:
    schemes on the summed drift begin one constant step later, or as `starting_at` says.

    Args:
        square_rate: At which the average of squares forgets, 1/time.
        eps: Added to the root, unit of the gradient.

    Reference:
        Tieleman & Hinton 2012, Coursera lecture 6.5.
    """
    return EquationFlow(RMSPROP, name="rmsprop", square_rate=square_rate, eps=eps)


def adagrad(*, accumulation: float | Tensor = 1.0, eps: float | Tensor = 1e-10) -> EquationFlow:
    """AdaGrad, θ' = −∇L/(√v + eps), v' = accumulation·∇L².

    Word "VA" with h = lr and accumulation·h = 1 is torch's Adagrad. From rest it moves as √t:
    schemes on the summed drift begin one constant step later, or as `starting_at` says.

    Args:
        accumulation: At which squares add up, 1/time.
        eps: Added to the root, unit of the gradient.

    Reference:
        Duchi, Hazan & Singer 2011, JMLR 12, 2121.
    """
    return EquationFlow(ADAGRAD, name="adagrad", accumulation=accumulation, eps=eps)


def adam(
    *,
    momentum_rate: float | Tensor = 105.0,
    square_rate: float | Tensor = 1.0,
    eps: float | Tensor = 1e-8,
) -> EquationFlow:
    """Adam with bias correction.

    θ' = −(m/u_m)/(√(v/u_v) + eps),  m' = a(∇L − m),  v' = b(∇L² − v),
    u_m' = a(1 − u_m),  u_v' = b(1 − u_v), all zero at the start.

    Word "TMVA" with h = lr, a·h = −ln β₁ and b·h = −ln β₂ is torch's Adam. The energy decreases
    along the flow if b ≤ 4a.

    Args:
        momentum_rate: a, at which the average of gradients forgets, 1/time; the default is near
            β₁ = 0.9 at h = 1e-3.
        square_rate: b, at which the average of squares forgets, 1/time; the default is near
            β₂ = 0.999 at h = 1e-3.
        eps: Added to the root, unit of the gradient.

    Reference:
        Kingma & Ba 2015, arXiv 1412.6980; Barakat & Bianchi 2021, SIAM J. Optim. 31(1), 244.
    """
    return EquationFlow(
        ADAM, name="adam", momentum_rate=momentum_rate, square_rate=square_rate, eps=eps
    )
