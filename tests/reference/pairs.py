"""Every flow with every scheme that fits it, from the registry."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from flowopt import CompatibilityError, Flow, Splitting
from flowopt.core.interfaces import Scheme, StepControl
from flowopt.problems import Landscape
from flowopt.registry import CONTROLS, FLOWS, METHODS, PARTITIONED, PROBLEMS, SCHEMES

from .solutions import CORNERED, slow_flow


class Pair(NamedTuple):
    """A flow with a scheme that fits it.

    Attributes:
        name: Of the flow or method.
        flow: The flow.
        scheme: The scheme.
        step_size: Small enough for the landscapes of the registry.
    """

    name: str
    flow: Flow
    scheme: Scheme
    step_size: float

    def __str__(self) -> str:
        return f"{self.name} {self.scheme!r}"


def fits(flow: Flow, scheme: Scheme) -> bool:
    try:
        scheme.check(flow)
    except CompatibilityError:
        return False
    return True


# Flows that meet every scheme on the summed drift. All that such a scheme sees of a flow is a drift
# like another, so of each other flow it is enough that one scheme, in turn, steps it: the rest is
# for --full.
EVERY_SCHEME = ("gradient_flow", "heavy_ball", "rmsprop", "langevin")

# Infinite friction has no drift to sum.
INFINITE = ("lol",)


def drift_schemes(name: str) -> list[Scheme]:
    """Schemes on the summed drift with which a registered flow is tried."""
    flow, schemes = FLOWS[name].build(), [build() for build in SCHEMES.values()]
    if name not in EVERY_SCHEME:
        # Along a drift of unit speed an estimate of the error is rounding, and decides by it.
        place = 0 if name in CORNERED else list(FLOWS).index(name) % len(schemes)
        schemes = schemes[place:] + schemes[:place]
    fitting = [scheme for scheme in schemes if fits(flow, scheme)]
    return fitting if name in EVERY_SCHEME else fitting[:1]


def _spared_pairs() -> list[Pair]:
    """What `PAIRS` leaves out: other flows with other schemes on the summed drift."""
    found = []
    for name in FLOWS:
        flow, met = slow_flow(name), list(map(repr, drift_schemes(name)))
        schemes = [build() for build in SCHEMES.values()] if name not in CORNERED else []
        rest = [scheme for scheme in schemes if repr(scheme) not in met and fits(flow, scheme)]
        found += [Pair(name, flow, scheme, 1e-3) for scheme in rest]
    return found


def _all_pairs() -> list[Pair]:
    pairs = []
    for name, entry in FLOWS.items():
        # From rest and with the usual eps, summed drifts of RMSProp and AdaGrad leap by 1/eps.
        flow = slow_flow(name)
        schemes = [Splitting(word) for word in entry.words]
        schemes += drift_schemes(name)
        pairs += [Pair(name, flow, scheme, 1e-3) for scheme in schemes]
    for name, build in METHODS.items():
        method = build()
        pairs.append(Pair(f"method {name}", method.flow, method.scheme, 1e-3))
    for name, entry in PARTITIONED.items():
        flow = entry.build()
        schemes = [Splitting(word) for word in entry.words]
        if name not in INFINITE:
            schemes += [scheme for build in SCHEMES.values() if fits(flow, scheme := build())][:1]
        pairs += [Pair(name, flow, scheme, 1e-3) for scheme in schemes]
    return pairs


PAIRS, SPARED = _all_pairs(), _spared_pairs()
# One coordinate, a sum of independent ones, a product: what every pair is tried on.
SMALL_PROBLEMS = {name: PROBLEMS[name]() for name in ("quadratic", "double_well", "rosenbrock")}
NOISE_FREE = [pair for pair in PAIRS if not pair.flow.noisy]
NOISY = [pair for pair in PAIRS if pair.flow.noisy]
CLOSURE_FREE = [
    pair for pair in PAIRS if pair.scheme.closure_free(pair.flow) and pair.flow.partition is None
]


def fitting(pair: Pair, problems: Mapping[str, Landscape]) -> list[str]:
    """Problems that have the parameters of a flow, and residuals where these are needed."""
    partition = pair.flow.partition
    fitted = [n for n, p in problems.items() if partition is None or p.dim == len(partition.leaves)]
    needed = pair.flow.damping is not None or getattr(pair.scheme, "gauss_newton", False)
    return [name for name in fitted if not needed or problems[name].residuals is not None]


def small_problems(pair: Pair, place: int) -> list[tuple[str, bool]]:
    """Small problems that a flow fits, and which of them is its in turn."""
    names = fitting(pair, SMALL_PROBLEMS)
    return [(name, number == place % len(names)) for number, name in enumerate(names)]


def controlled_pairs() -> list[tuple[Pair, str]]:
    """Pairs that kernels can step, with the names of controls that can judge their steps.

    All that a control by error sees of a pair is an estimate, and one by slope a displacement with
    the gradients at its ends, so one of these and of those, in turn, is enough.
    """
    return [(pair, name) for pair, name, spared in _combinations(PAIRS) if not spared]


def spared_combinations() -> list[tuple[Pair, str]]:
    """All other pairs and controls."""
    rest = [(pair, name) for pair, name, spared in _combinations(PAIRS) if spared]
    return rest + [(pair, name) for pair, name, _ in _combinations(SPARED)]


def _combinations(pairs: list[Pair]) -> list[tuple[Pair, str, bool]]:
    """Pairs and controls that judge them, and whether other controls stand for this one."""
    found = []
    for place, pair in enumerate(pairs):
        controls = {name: build(pair.step_size) for name, build in CONTROLS.items()}
        fitting = [name for name, control in controls.items() if judges(control, pair)]
        others = [n for n in fitting if not controls[n].weighs_loss]
        by_slope = [n for n in others if controls[n].uses_gradient(pair.flow)]
        by_error = [n for n in others if controls[n].rejects and n not in by_slope]
        spared = {
            name
            for group in (by_slope, by_error)
            for number, name in enumerate(group)
            if number != place % len(group)
        }
        found += [(pair, name, name in spared) for name in fitting]
    return found


def judges(control: StepControl, pair: Pair) -> bool:
    try:
        control.check(pair.flow, pair.scheme)
    except CompatibilityError:
        return False
    return True


def in_turn(pairs: list[Pair]) -> list:
    """Every pair with one of the small problems in turn; with the others by --full."""
    return [
        pytest.param(
            pair,
            problem,
            id=f"{pair} {problem}",
            marks=() if now else (pytest.mark.full,),
        )
        for place, pair in enumerate(pairs)
        for problem, now in small_problems(pair, place)
    ]
