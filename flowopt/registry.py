"""Every flow, scheme, control, method and problem with small settings.

Tests, documentation and the command line are made from these lines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flowopt import classic, flows, problems
from flowopt.classic import Method
from flowopt.controls import (
    BoldUphill,
    Constant,
    Damping,
    ElementaryControl,
    ErrorControl,
    ExpectedSlope,
    Fletcher,
    GradientOnly,
    HaganMenhaj,
    LyapunovControl,
    Nielsen,
    Schedule,
    Solved,
)
from flowopt.core.interfaces import FlowLike, Scheme, StepControl
from flowopt.core.partition import Partition
from flowopt.problems import Landscape
from flowopt.schemes import (
    TABLEAUX,
    EnergyMidpoint,
    Euler,
    EulerMaruyama,
    EulerRichardson,
    LeimkuhlerMatthews,
    LinearlyImplicitEuler,
    Projected,
    Restarted,
    RungeKutta,
)


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
    "fading_friction": FlowEntry(flows.fading_friction, ("OBA",), 0.3),
    "rmsprop": FlowEntry(lambda: flows.rmsprop(square_rate=10.0), ("VA",), 1e-3),
    "adagrad": FlowEntry(lambda: flows.adagrad(accumulation=100.0), ("VA",), 1e-2),
    "adam": FlowEntry(flows.adam, ("TMVA",), 1e-3),
    "amsgrad": FlowEntry(flows.amsgrad, ("TMVXA",), 1e-3),
    "adamax": FlowEntry(flows.adamax, ("TMVXA",), 1e-3),
    "radam": FlowEntry(flows.radam, ("TMVA",), 1e-3),
    "yogi": FlowEntry(flows.yogi, ("MVA",), 1e-3),
    "adabelief": FlowEntry(flows.adabelief, ("TMVA",), 1e-3),
    "sign_gradient": FlowEntry(flows.sign_gradient, ("A",), 1e-3),
    "normalised_gradient": FlowEntry(flows.normalised_gradient, ("A",), 0.1),
    "p_gradient": FlowEntry(flows.p_gradient, ("A",), 0.3),
    "clipped_gradient": FlowEntry(flows.clipped_gradient, ("A",), 0.5),
    "lion": FlowEntry(lambda: flows.lion(rate=10.0), ("MA",), 1e-3),
    "levenberg_marquardt": FlowEntry(flows.levenberg_marquardt, ("A",), 1.0),
    "inna": FlowEntry(flows.inna, ("A",), 0.1),
    "nose_hoover": FlowEntry(lambda: flows.nose_hoover(temperature=1e-4), ("BACECAB",), 0.3),
    "overdamped_langevin": FlowEntry(
        lambda: flows.overdamped_langevin(temperature=1e-4), ("A",), 0.1
    ),
    "adaptive_langevin": FlowEntry(
        lambda: flows.adaptive_langevin(temperature=1e-4), ("ACDEDCAB", "BAE(CD)EAB"), 0.3
    ),
    "langevin": FlowEntry(
        lambda: flows.langevin(friction=1.0, temperature=1e-4),
        ("BAOA", "BAOAB", "ABOBA", "OBABO", "OBA", "(AO)B(AO)"),
        1.0,
    ),
}


def _two_blocks(
    first: flows.EquationFlow,
    second: flows.EquationFlow,
    letters: Mapping[str, Mapping[str, str]] | None = None,
    pace: Mapping[str, float] | None = None,
) -> flows.PartitionedFlow:
    """A flow for each of two coordinates."""
    partition = Partition(("0", "1"), {"first": 0, "second": 1})
    return flows.PartitionedFlow(
        partition, {"first": first, "second": second}, letters=letters, pace=pace
    )


# Flows of two parameters, each of them a block.
PARTITIONED: Mapping[str, FlowEntry] = {
    "adlala": FlowEntry(
        lambda: _two_blocks(
            flows.adaptive_langevin(temperature=1e-4),
            flows.langevin(friction=0.1, temperature=1e-4),
            letters={"first": {"O": "CDEDC"}},
        ),
        ("AOAB",),
        0.25,
    ),
    "lol": FlowEntry(
        lambda: _two_blocks(
            flows.langevin(friction=0.1, temperature=1e-4),
            flows.langevin(friction=float("inf"), temperature=1e-4),
        ),
        ("BAOAB",),
        0.25,
    ),
    "heavy_ball_and_adam": FlowEntry(
        lambda: _two_blocks(
            flows.heavy_ball(),
            flows.adam(),
            letters={"second": {"B": "TMV"}},
            pace={"second": 0.5},
        ),
        ("OBA",),
        1e-3,
    ),
}

SCHEMES: Mapping[str, Callable[[], Scheme]] = {
    "euler": Euler,
    "euler_maruyama": EulerMaruyama,
    "leimkuhler_matthews": LeimkuhlerMatthews,
    "linearly_implicit_euler": LinearlyImplicitEuler,
    "levenberg_marquardt": lambda: LinearlyImplicitEuler(gauss_newton=True),
    "geodesic_acceleration": lambda: LinearlyImplicitEuler(gauss_newton=True, acceleration=True),
    **{name: (lambda name=name: RungeKutta(name)) for name in TABLEAUX},
    "euler_richardson": EulerRichardson,
    "projected": lambda: Projected(RungeKutta("heun"), iterations=3),
    "energy_midpoint": EnergyMidpoint,
    "restarted": lambda: Restarted(RungeKutta("heun")),
}

CONTROLS: Mapping[str, Callable[[float], StepControl]] = {
    "constant": Constant,
    "schedule": lambda step_size: Schedule(lambda step: step_size / (1.0 + 0.1 * step)),
    "error": lambda step_size: ErrorControl(rtol=1e-4, atol=1e-6, first_step=step_size),
    "elementary": lambda step_size: ElementaryControl(tolerance=1e-3, first_step=step_size),
    "expected_slope": lambda step_size: ExpectedSlope(gain=1e-3, first_step=step_size, start=1.0),
    "gradient_only": lambda step_size: GradientOnly(first_step=step_size, longest_move=0.01),
    "lyapunov": lambda step_size: LyapunovControl(first_step=step_size),
    "solved": lambda step_size: Solved(first_step=step_size),
    "hagan_menhaj": lambda step_size: Damping(HaganMenhaj(), damping=1 / step_size),
    "fletcher": lambda step_size: Damping(Fletcher(), damping=1 / step_size),
    "nielsen": lambda step_size: Damping(Nielsen(), damping=1 / step_size),
    "bold_uphill": lambda step_size: Damping(BoldUphill(), damping=1 / step_size),
}

METHODS: Mapping[str, Callable[[], Method]] = {
    "sgd": lambda: classic.sgd(lr=0.5),
    "momentum": lambda: classic.sgd(lr=0.1, momentum=0.9),
    "nesterov": lambda: classic.sgd(lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda: classic.adam(lr=1e-2),
    "adamw": lambda: classic.adamw(lr=1e-2),
    "rmsprop": lambda: classic.rmsprop(lr=3e-3),
    "adagrad": lambda: classic.adagrad(lr=0.1),
    "amsgrad": lambda: classic.amsgrad(lr=1e-2),
    "adamax": lambda: classic.adamax(lr=1e-2),
    "nadam": lambda: classic.nadam(lr=1e-2),
    "radam": lambda: classic.radam(lr=1e-2),
    "adadelta": classic.adadelta,
    "yogi": lambda: classic.yogi(lr=1e-2),
    "adabelief": lambda: classic.adabelief(lr=1e-2),
    "lion": lambda: classic.lion(lr=1e-3),
    "sign_sgd": lambda: classic.sign_sgd(lr=1e-3),
    "signum": lambda: classic.signum(lr=1e-3),
    "normalised_gd": lambda: classic.normalised_gd(lr=0.1),
    "clipped_gd": lambda: classic.clipped_gd(lr=0.5),
    "heavy_ball": lambda: classic.heavy_ball(lr=0.1),
    "accelerated_gradient": lambda: classic.accelerated_gradient(lr=0.1),
    "inna": lambda: classic.inna(lr=0.1),
    "sgld": lambda: classic.sgld(lr=0.1, temperature=1e-4),
    "sghmc": lambda: classic.sghmc(lr=0.1, temperature=1e-4),
    "sgnht": lambda: classic.sgnht(lr=0.1, temperature=1e-4),
    "psgld": lambda: classic.psgld(lr=1e-3, temperature=1e-4),
}

PROBLEMS: Mapping[str, Callable[[], Landscape]] = {
    "quadratic": lambda: problems.quadratic([1.0, 4.0]),
    "double_well": problems.double_well,
    "rosenbrock": problems.rosenbrock,
    **{name: (lambda name=name: problems.analytic(name)) for name in problems.ANALYTIC},
}
