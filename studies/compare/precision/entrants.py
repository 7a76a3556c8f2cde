"""Who follows the flow: our schemes, and the solvers of torchdiffeq and torchsde."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torchdiffeq
import torchsde
from torch import Tensor

import flowopt as fo
from flowopt.errors import CompatibilityError
from flowopt.registry import SCHEMES
from studies.common.candidates import Scheme, scheme_name

# Order of convergence in the step size that each documentation claims; adaptive solvers take
# tolerances, and their order is that of the solution they carry on.
FIXED = {"euler": 1, "midpoint": 2, "heun3": 3, "rk4": 4, "implicit_adams": 4}
ADAPTIVE = {"adaptive_heun": 2, "bosh3": 3, "dopri5": 5, "dopri8": 8}
# From level to level an adaptive solver is asked for what halving its step would give.
LOOSEST_TOLERANCE, TIGHTEST_TOLERANCE = 1e-2, 1e-12
# More than two steps back, implicit_adams is of order four with this setting.
OPTIONS = {"implicit_adams": {"max_order": 4}}
# Strong orders of ours other than 1: what shares normals between steps is half a kick off the path.
STRONG = {"leimkuhler_matthews": 0.5}
# Strong orders for noise that does not depend on what it drives; method → (reading, order).
STOCHASTIC = {
    "euler": ("ito", 1.0),
    "srk": ("ito", 1.5),
    "heun": ("stratonovich", 1.0),
    "midpoint": ("stratonovich", 1.0),
    "reversible_heun": ("stratonovich", 1.0),
}


@dataclass(frozen=True)
class Setting:
    """What everyone is given.

    Attributes:
        flow: The equation.
        problem: Whose loss it descends.
        start: (starts, dim), float64.
        time: At which the position is asked for.
    """

    flow: fo.Flow
    problem: fo.problems.Landscape
    start: Tensor
    time: float
    path: fo.adapters.BrownianPath | None = None


@dataclass(frozen=True)
class End:
    """Where a run ended and what it took.

    Attributes:
        position: (starts, dim).
        gradients: Per trajectory.
        seconds: Of the whole run.
    """

    position: Tensor
    gradients: float
    seconds: float


class Run(Protocol):
    """Follows the flow with so many steps."""

    def __call__(self, setting: Setting, steps: int, level: int) -> End:
        """The end of a run; `level` counts from the coarsest."""
        ...


@dataclass(frozen=True)
class Entrant:
    """One line of the comparison.

    Attributes:
        label: In figures and tables.
        family: Whose it is.
        claimed: Order of convergence.
        run: Runs it.
    """

    label: str
    family: str
    claimed: float
    run: Callable[[Setting, int, int], End]


def fitting_schemes(flow: fo.Flow, words: tuple[str, ...]) -> list[Scheme]:
    """Every scheme of the registry, and every word, that fits a flow and follows its path."""
    # Letters that move jointly draw more than the increments of a given path.
    words = tuple(word for word in words if not (flow.noisy and "(" in word))
    schemes: list[Scheme] = [fo.Splitting(word) for word in words]
    for build in SCHEMES.values():
        scheme = build()
        try:
            scheme.check(flow)
        except CompatibilityError:
            continue
        if scheme.order(flow) > 0:
            schemes.append(scheme)
    return schemes


def entrants(flow: fo.Flow, words: tuple[str, ...]) -> Iterator[Entrant]:
    """Everyone who can follow a flow."""
    for scheme in fitting_schemes(flow, words):
        label = scheme_name(scheme)
        claimed = STRONG.get(label, 1.0) if flow.noisy else scheme.order(flow)
        yield Entrant(label, "flowopt", claimed, _ours(scheme))
    if flow.noisy:
        same = all(not {*w.drives} & {*w.depends_on} for w in flow.wiener)
        for method, (reading, order) in STOCHASTIC.items():
            if reading == "ito" or same:
                yield Entrant(f"torchsde {method}", "torchsde", order, _torchsde(method, reading))
        return
    for method, order in {**FIXED, **ADAPTIVE}.items():
        yield Entrant(f"torchdiffeq {method}", "torchdiffeq", order, _torchdiffeq(method))


def _ours(scheme: Scheme) -> Run:
    def run(setting: Setting, steps: int, level: int) -> End:
        noise = None
        if setting.path is not None:
            noise = fo.adapters.to_torchsde(setting.flow, setting.problem).noise(setting.path)
        begin = time.perf_counter()
        solution = fo.integrate(
            setting.flow,
            scheme,
            setting.problem,
            setting.start,
            step_size=setting.time / steps,
            steps=steps,
            noise=noise,
        )
        seconds = time.perf_counter() - begin
        finite = (solution.status == int(fo.Status.STEPS_TAKEN))[:, None]
        position = torch.where(finite, solution.position, torch.nan)
        # What integrate takes beyond, to know how the end fares, is in the seconds alone.
        return End(position, steps * scheme.gradient_evaluations(setting.flow), seconds)

    return run


def _torchdiffeq(method: str) -> Run:
    def run(setting: Setting, steps: int, level: int) -> End:
        system = fo.adapters.to_torchdiffeq(setting.flow, setting.problem)
        order = ADAPTIVE.get(method, 1)
        tolerance = max(LOOSEST_TOLERANCE / 2.0 ** (order * level), TIGHTEST_TOLERANCE)
        options: Mapping[str, float] = dict(OPTIONS.get(method, {}))
        if method in FIXED:
            options = {**options, "step_size": setting.time / steps}
        times = torch.tensor([0.0, setting.time], dtype=torch.float64)
        packed = system.pack(setting.start)
        calls = _Calls(system)
        begin = time.perf_counter()
        try:
            with torch.no_grad():
                states = torchdiffeq.odeint(
                    calls,
                    packed,
                    times,
                    method=method,
                    rtol=tolerance,
                    atol=tolerance,
                    options=options or None,
                )
            position = system.position(states[-1])
        except AssertionError:
            # Its way to say that the step size underflowed.
            position = torch.full_like(setting.start, torch.nan)
        return End(position, calls.number, time.perf_counter() - begin)

    return run


def _torchsde(method: str, reading: str) -> Run:
    def run(setting: Setting, steps: int, level: int) -> End:
        system = fo.adapters.to_torchsde(setting.flow, setting.problem, sde_type=reading)
        calls = _Calls(system)
        system.f = calls
        times = torch.tensor([0.0, setting.time], dtype=torch.float64)
        packed = system.pack(setting.start)
        begin = time.perf_counter()
        with torch.no_grad():
            states = torchsde.sdeint(
                system, packed, times, bm=setting.path, dt=setting.time / steps, method=method
            )
        seconds = time.perf_counter() - begin
        return End(system.position(states[-1]), calls.number, seconds)

    return run


class _Calls:
    """A vector field that counts how often it is asked: one gradient each time."""

    def __init__(self, system: fo.adapters.System):
        self._system, self.number = system, 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.number += 1
        return self._system.drift(t, y)
