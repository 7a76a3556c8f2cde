"""Every flow, scheme, control, method and problem with small settings.

Tests, documentation and the command line are made from these lines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flowopt import classic, flows, problems
from flowopt.classic import Method
from flowopt.controls import Constant, ErrorControl, LyapunovControl, Schedule
from flowopt.core.interfaces import FlowLike, Scheme, StepControl
from flowopt.problems import Landscape
from flowopt.schemes import TABLEAUX, Euler, EulerMaruyama, LinearlyImplicitEuler, RungeKutta


@dataclass(frozen=True)
class FlowEntry:
    """A flow with small settings.

    Attributes:
        build: Makes it.
        words: Splitting words that fit, the usual one first.
        step_size: For a network.
    """

    build: Callable[[], FlowLike]
    words: tuple[str, ...]
    step_size: float


FLOWS: Mapping[str, FlowEntry] = {
    "gradient_flow": FlowEntry(flows.gradient_flow, ("A",), 0.5),
    "heavy_ball": FlowEntry(flows.heavy_ball, ("OBA", "BAOAB", "BAOA", "ABOBA", "OBABO"), 1.0),
    "momentum_ema": FlowEntry(flows.momentum_ema, ("MA", "MAM", "AMA"), 0.5),
    "nesterov": FlowEntry(lambda: flows.nesterov(friction=1.0, lookahead=0.1), ("BOA",), 0.3),
    "nesterov_ema": FlowEntry(lambda: flows.nesterov_ema(rate=1.0, memory=0.9), ("MA",), 0.5),
    "accelerated_gradient": FlowEntry(flows.accelerated_gradient, ("OBA",), 0.3),
    "rmsprop": FlowEntry(lambda: flows.rmsprop(square_rate=10.0), ("VA",), 1e-3),
    "adagrad": FlowEntry(lambda: flows.adagrad(accumulation=100.0), ("VA",), 1e-2),
    "adam": FlowEntry(flows.adam, ("TMVA",), 1e-3),
    "langevin": FlowEntry(
        lambda: flows.langevin(friction=1.0, temperature=1e-4),
        ("BAOA", "BAOAB", "ABOBA", "OBABO", "OBA", "(AO)B(AO)"),
        1.0,
    ),
}

SCHEMES: Mapping[str, Callable[[], Scheme]] = {
    "euler": Euler,
    "euler_maruyama": EulerMaruyama,
    "linearly_implicit_euler": LinearlyImplicitEuler,
    **{name: (lambda name=name: RungeKutta(name)) for name in TABLEAUX},
}

CONTROLS: Mapping[str, Callable[[float], StepControl]] = {
    "constant": Constant,
    "schedule": lambda step_size: Schedule(lambda step: step_size / (1.0 + 0.1 * step)),
    "error": lambda step_size: ErrorControl(rtol=1e-4, atol=1e-6, first_step=step_size),
    "lyapunov": lambda step_size: LyapunovControl(first_step=step_size),
}

METHODS: Mapping[str, Callable[[], Method]] = {
    "sgd": lambda: classic.sgd(lr=0.5),
    "momentum": lambda: classic.sgd(lr=0.1, momentum=0.9),
    "nesterov": lambda: classic.sgd(lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda: classic.adam(lr=1e-2),
    "adamw": lambda: classic.adamw(lr=1e-2),
    "rmsprop": lambda: classic.rmsprop(lr=3e-3),
    "adagrad": lambda: classic.adagrad(lr=0.1),
}

PROBLEMS: Mapping[str, Callable[[], Landscape]] = {
    "quadratic": lambda: problems.quadratic([1.0, 4.0]),
    "double_well": problems.double_well,
    "rosenbrock": problems.rosenbrock,
    **{name: (lambda name=name: problems.analytic(name)) for name in problems.ANALYTIC},
}
