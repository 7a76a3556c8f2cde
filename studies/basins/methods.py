"""Optimizers as the study steps them: flow × scheme × control × step size × end, by name.

The coefficients are those of the published records that the study is compared with: averages
forget by 0.1 and 0.001 per step, and Adam's root has a constant inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import flowopt as fo
from flowopt.errors import ConfigurationError
from flowopt.registry import CONTROLS, Scheme, StepControl
from studies.common.candidates import candidate, step_size_of
from studies.common.names import unknown_name

# Share of its average that a method forgets per step.
FORGETS, FORGETS_SQUARE = 0.1, 0.001
INSIDE_THE_ROOT = 1e-10
MOST_STEPS = 20_000
COARSE, FINE = 1e-4, 1e-5
# Of the true flows, whose tolerance is far below what a map can show.
ODE_TOLERANCE, ODE_DURATION, AT_REST = 1e-8, 200.0, 1e-6
# A few starts of a million come to where explicit steps would never end.
MOST_ODE_STEPS = 5_000_000
SMALL_STEPS = 1 / 1.5

WITHOUT_CORRECTION = """
M: dm/dt = momentum_rate*(g - m)
V: dv/dt = square_rate*(g**2 - v)
A: dtheta/dt = -m/sqrt(v + floor)
energy lyapunov: momentum_rate*L + m**2/(2*sqrt(v + floor))
"""
WITH_CORRECTION = """
scalar u_m
scalar u_v
T: du_m/dt = momentum_rate*(1 - u_m)
T: du_v/dt = square_rate*(1 - u_v)
M: dm/dt = momentum_rate*(g - m)
V: dv/dt = square_rate*(g**2 - v)
A: dtheta/dt = -sqrt(u_v)/u_m*m/sqrt(v + floor)
energy lyapunov: momentum_rate*L + sqrt(u_v)/u_m*m**2/(2*sqrt(v + floor))
"""


@dataclass(frozen=True)
class Method:
    """What moves a start to where it ends.

    Attributes:
        name: As the user wrote it.
        flow: The equation.
        scheme: How it becomes a step.
        control: How far to step, and whether to accept.
        tolerance: Norm of the gradient that ends a trajectory.
        duration: Time that ends it, where it is no number of steps.
        ode: Name of the method that follows its flow without error; "" where there is none.
    """

    name: str
    flow: fo.Flow
    scheme: Scheme
    control: StepControl | None
    tolerance: float = COARSE
    duration: float | None = None
    ode: str = ""

    @property
    def stop(self) -> fo.stop.Stop:
        """A true flow is followed to rest; the records end where the gradient alone is small."""
        kind = fo.stop.gradient if self.duration is None else fo.stop.rest
        return kind(self.tolerance)


def _rates(step_size: float, share: float = 1.0) -> dict[str, float]:
    """Of moving averages whose exact map forgets a share of the shares above in a step."""
    return {
        "momentum_rate": -math.log1p(-share * FORGETS) / step_size,
        "square_rate": -math.log1p(-share * FORGETS_SQUARE) / step_size,
    }


def _descent(control: Callable[[float], StepControl], scheme: Scheme | None = None):
    def build(step_size: float) -> Method:
        flow = fo.flows.gradient_flow()
        return Method("", flow, scheme or fo.Euler(), control(step_size), ode="gradient_flow")

    return build


def _momentum(
    control: Callable[[float], StepControl], scheme: Scheme, per_time: float | None = None
):
    """Euler maps of both letters: the average forgets rate · h per step, whatever h is."""

    def build(step_size: float) -> Method:
        flow = fo.flows.momentum_ema(rate=per_time or FORGETS / step_size)
        return Method("", flow, scheme, control(step_size), FINE, ode="momentum_ode")

    return build


def _adam(text: str, word: str, ode: str, control: Callable[[float], StepControl] = fo.Constant):
    def build(step_size: float) -> Method:
        flow = fo.Flow.from_text(text, name="adam", floor=INSIDE_THE_ROOT, **_rates(step_size))
        return Method("", flow, fo.Splitting(word), control(step_size), FINE, ode=ode)

    return build


def _ode(flow: Callable[[], fo.Flow]):
    def build(_: float) -> Method:
        control = fo.ErrorControl(rtol=ODE_TOLERANCE, atol=ODE_TOLERANCE)
        return Method("", flow(), fo.RungeKutta("dopri5"), control, AT_REST, ODE_DURATION)

    return build


def _decrease(step_size: float) -> fo.LyapunovControl:
    """Any decrease is enough, and every step begins with the same h."""
    return fo.LyapunovControl(
        dissipation=0.0, shrink=SMALL_STEPS, first_step=step_size, restart=True
    )


def _author_error(step_size: float) -> fo.ElementaryControl:
    """Without a guard, as in the records."""
    return fo.ElementaryControl(first_step=step_size, largest_growth=None)


def _dissipation(**settings: Any):
    return lambda step_size: fo.LyapunovControl(first_step=step_size, **settings)


def _projected(tolerance: float) -> fo.Projected:
    """To the author's tolerance, with his unit of time."""
    return fo.Projected(fo.Euler(), rtol=0.0, atol=tolerance, unit=1.0)


def _solved(step_size: float) -> fo.Solved:
    """Steps grow by half and are never more than 10, as in the author's program."""
    return fo.Solved(first_step=step_size, growth=1.5, largest_step=10.0)


def _hagan_menhaj(step_size: float) -> fo.control.Damping:
    """Damping falls tenfold where the loss does, else rises tenfold."""
    return fo.control.Damping(fo.control.HaganMenhaj(), damping=1.0 / step_size)


def _uncorrected(ratio: float) -> fo.Flow:
    name, floor = "adam without bias correction", INSIDE_THE_ROOT
    text = WITHOUT_CORRECTION
    return fo.Flow.from_text(text, name=name, momentum_rate=1.0, square_rate=ratio, floor=floor)


def _controlled_adam(scheme: Scheme):
    """Torch's rates; no more than a tenth of the step is tried blindly, from where it doubles."""

    def build(step_size: float) -> Method:
        flow = fo.flows.adam(momentum_rate=0.1 / step_size, square_rate=0.001 / step_size)
        control = fo.LyapunovControl(dissipation=0.1, growth=2.0, first_step=0.1 * step_size)
        return Method("", flow, scheme, control, FINE, ode="adam_ode")

    return build


def _torchs_adam(step_size: float) -> Method:
    adam = fo.classic.adam(lr=step_size)
    return Method("", adam.flow, adam.scheme, fo.Constant(step_size), FINE, ode="adam_ode")


GAUSS_NEWTON = fo.LinearlyImplicitEuler(gauss_newton=True)
ADAMS_WORD = fo.Splitting("TMVA")
EULER_AVERAGE = fo.Splitting("MA", maps={"M": "euler"})

METHODS: Mapping[str, Callable[[float], Method]] = {
    "gd": _descent(fo.Constant),
    "momentum": _momentum(fo.Constant, EULER_AVERAGE),
    "momentum_euler": _momentum(fo.Constant, fo.Euler()),
    "awb": _adam(WITHOUT_CORRECTION, "MVA", "awb_ode"),
    "adam": _adam(WITH_CORRECTION, "TMVA", "adam_ode"),
    "torchs_adam": _torchs_adam,
    "er": _descent(_author_error, fo.EulerRichardson("author")),
    "lm_base": _descent(fo.Constant, GAUSS_NEWTON),
    "lm": _descent(_hagan_menhaj, GAUSS_NEWTON),
    "gd_em": _descent(_decrease),
    "momentum_em": _momentum(_decrease, EULER_AVERAGE),
    "lc_gd": _descent(_dissipation(growth=1e4)),
    "lc_gd2": _descent(_dissipation(shrink=1 / 30, growth=1e4, bisections=3)),
    "lc_gd3": _descent(_dissipation(model=0.9, growth=90.0)),
    "lc_gd_restart": _descent(_dissipation(restart=True)),
    "lc_gd_moderate": _descent(_dissipation(growth=2.0)),
    "lc_momentum": _momentum(
        _dissipation(dissipation=0.125, growth=1e4, largest_step=0.5), EULER_AVERAGE, 2.0
    ),
    "pgd": _descent(_solved, _projected(COARSE**2 / 10)),
    "pm": _momentum(_solved, _projected(FINE**2 / 100)),
    "lc_em": _momentum(_solved, fo.EnergyMidpoint("author")),
    "lc_adam": _controlled_adam(ADAMS_WORD),
    "lc_adam_restarted": _controlled_adam(fo.Restarted(ADAMS_WORD)),
    "gradient_flow": _ode(fo.flows.gradient_flow),
    "momentum_ode": _ode(fo.flows.momentum_ema),
    "awb_ode": _ode(lambda: _uncorrected(FORGETS_SQUARE / FORGETS)),
    "adam_ode": _ode(
        lambda: fo.flows.adam(momentum_rate=1.0, square_rate=FORGETS_SQUARE / FORGETS)
    ),
}
MEANINGS: Mapping[str, str] = {
    "gd": "gradient descent",
    "momentum": "gradient descent along an average of the gradients that forgets 0.1 per step",
    "momentum_euler": "momentum by explicit Euler, along the average of the step before",
    "awb": "Adam without bias correction",
    "adam": "Adam, with a constant of 1e-10 within its root",
    "torchs_adam": "Adam as in torch",
    "er": "Euler–Richardson: steps of gradient descent by an estimate of their error",
    "lm_base": "Levenberg–Marquardt with a damping of 1/h",
    "lm": "Levenberg–Marquardt by Hagan and Menhaj's rule, its damping at first 1/h",
    "gd_em": "gd, each step begun with h and shortened until the loss falls",
    "momentum_em": "momentum, each step begun with h and shortened until the energy falls",
    "lc_gd": "gd, each step shortened until the loss falls at half of its rate along the equation, "
    "the next begun with 10⁴ times the last",
    "lc_gd2": "lc_gd, looking for the longest step that holds by three bisections",
    "lc_gd3": "lc_gd, each step as long as a quadratic model of the loss along it says",
    "lc_gd_restart": "lc_gd, but each step begun with h",
    "lc_gd_moderate": "lc_gd, but each step begun with twice the last",
    "lc_momentum": "momentum, each step shortened until its energy falls at an eighth of its rate",
    "pgd": "gd, each step moved to where the loss has fallen at its rate along the equation",
    "pm": "momentum, each step moved to where its energy has fallen at its rate",
    "lc_em": "momentum whose mean over a step is as long as the balance of energy asks",
    "lc_adam": "Adam, each step shortened until its energy falls at a tenth of its rate, the next "
    "begun with twice the last",
    "lc_adam_restarted": "lc_adam, its momentum set to zero wherever the loss would rise along it",
    "gradient_flow": "the equation of gd, followed truly",
    "momentum_ode": "the equation of momentum at h = 0.1, followed truly",
    "awb_ode": "the equation of awb at h = 0.1, followed truly",
    "adam_ode": "the equation of adam at h = 0.1, followed truly",
}
USUAL_STEP = 0.1


def slower(name: str, step_size: float) -> Method:
    """Either awb or momentum, with shares forgotten in proportion to h: steps of one equation."""
    share = step_size / USUAL_STEP
    made = METHODS[name](step_size)
    if name == "awb":
        flow = made.flow.with_hyperparameters(floor=INSIDE_THE_ROOT, **_rates(step_size, share))
    else:
        flow = fo.flows.momentum_ema(rate=FORGETS / USUAL_STEP)
    return replace(made, name=name, flow=flow)


def moment_ode(ratio: float, *, corrected: bool) -> Method:
    """Adam's equation with a = 1 and b = ratio, with or without correction, followed truly."""
    if corrected:
        flow = fo.flows.adam(momentum_rate=1.0, square_rate=ratio)
    else:
        flow = _uncorrected(ratio)
    return replace(METHODS["adam_ode"](USUAL_STEP), flow=flow)


def method(specification: str) -> Method:
    """What a specification stands for.

    Args:
        specification: NAME or NAME@STEP with a name of `METHODS`; else what
            `studies.common.candidates` reads, such as "heavy_ball:BAOAB@0.3", and "+lyapunov" or
            "+error" after it where that control of the registry is to choose the steps.

    Raises:
        FlowoptError: It stands for nothing, or its parts do not fit.
    """
    text = specification.strip()
    name, at, step = text.partition("@")
    if name in METHODS:
        step_size = step_size_of(step if at else None) or USUAL_STEP
        return replace(METHODS[name](step_size), name=text)
    return _of_the_registry(text)


def _of_the_registry(text: str) -> Method:
    optimizer, plus, control = text.partition("+")
    # Names of this study have a control of their own: they are no suggestion before a '+'.
    found = candidate(optimizer, others=() if plus else METHODS)
    if not plus:
        chosen = fo.Constant(found.step_size)
    elif control in CONTROLS:
        chosen = CONTROLS[control](found.step_size)
    else:
        raise ConfigurationError(unknown_name("control", control, CONTROLS))
    chosen.check(found.flow, found.scheme)
    return Method(text, found.flow, found.scheme, chosen, FINE)
