"""The true flow: tightly integrated, trajectory by trajectory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from flowopt.adapters.ode import OdeSystem
from flowopt.core.interfaces import FlowLike, Oracle
from flowopt.core.oracle import Problem
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import CompatibilityError, ConfigurationError, DataError

METHODS = ("DOP853", "Radau")
# Below, scipy's solvers would raise it.
LEAST_RTOL = 1e-13


@dataclass(frozen=True)
class ReferenceSolution:
    """Where a flow goes, to nearly the last digit.

    Attributes:
        times: (time,), float64.
        position: (time, *batch, dim), or parameters by name for a network; NaN after the end of a
            trajectory that diverges.
        state: All variables at all times, its batch (time, *batch).
        status: (*batch,), int8, values of `Status`.
        gradients: Gradients taken, (*batch,), int64.
    """

    times: Tensor
    position: Any
    state: State
    status: Tensor
    gradients: Tensor


def reference_solution(
    flow: FlowLike,
    problem: Problem | Oracle,
    start: object,
    times: Sequence[float] | Tensor,
    *,
    rtol: float = 1e-12,
    atol: float = 1e-14,
    method: str = "DOP853",
) -> ReferenceSolution:
    """Integrates a flow without noise so tightly that others can be measured against it.

    Every trajectory is integrated by itself, from one time to the next, so that no value is
    interpolated. Errors are those of scipy's solver at these tolerances: some hundred times rtol
    where trajectories neither attract nor repel one another, growing where they repel.

    Args:
        flow: The equation, without noise.
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        start: (*batch, dim), parameters by name for a network, or a `solution.state`; float64.
        times: (time,), increasing, not before the time of the start, which is 0 unless the start
            is a state.
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        method: "DOP853", or "Radau" for stiff flows.

    Raises:
        CompatibilityError: The flow has noise, or no drift at its initial state.
        ConfigurationError: A tolerance, a time or the method is of no use.
        DataError: The start has the wrong shape or type.

    Reference:
        Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, section II.5.
    """
    if flow.noisy:
        raise CompatibilityError(
            f"flow {flow.name!r} has noise, so it has one solution for each Brownian path: compare "
            "fine and coarse steps on one path, by to_torchsde(flow, problem).path(...)"
        )
    solve = partial(solve_ivp, method=_checked_method(method), rtol=rtol, atol=atol)
    _check_tolerances(rtol, atol)
    with torch.no_grad():
        system = OdeSystem(flow, problem)
        state = system.state(start)
        moments = _checked_times(times, state)
        packed = system.packed(state)
        solved = [
            _solved(OdeSystem(flow.member(index), problem), packed[index], begin, moments, solve)
            for index, begin in np.ndenumerate(state.time.numpy(force=True))
        ]
        values, status, gradients = zip(*solved, strict=True) if solved else ((), (), ())
        shape = (*state.batch, len(moments), packed.shape[-1])
        rows = torch.from_numpy(np.array(values)).reshape(shape).movedim(-2, 0).to(packed)
        times = torch.from_numpy(moments).to(packed)
        return ReferenceSolution(
            times,
            system.position(rows),
            system.unpack(rows, times),
            state.step.new_tensor(status, dtype=torch.int8).reshape(state.batch),
            state.step.new_tensor(gradients).reshape(state.batch),
        )


def _solved(
    system: OdeSystem, packed: Tensor, begin: float, moments: np.ndarray, solve: Callable
) -> tuple[np.ndarray, Status, int]:
    """Packed states of one trajectory (time, numbers), how it ended, and gradients taken.

    Integrated anew from one time to the next, since what scipy interpolates is less accurate.
    """
    gradients = 0

    def drift(time: float, numbers: np.ndarray) -> np.ndarray:
        nonlocal gradients
        gradients += 1
        return system.drift(time, torch.from_numpy(numbers).to(packed)).numpy(force=True)

    values = np.full((len(moments), len(packed)), np.nan)
    here = packed.numpy(force=True)
    for place, moment in enumerate(moments):
        if moment > begin:
            # A trial step may leave the numbers that there are; it is then made smaller.
            with np.errstate(all="ignore"):
                piece = solve(drift, (begin, moment), here, t_eval=(moment,))
            if piece.status != 0 or not np.isfinite(piece.y).all():
                return values, Status.STEP_TOO_SMALL, gradients
            here, begin = piece.y[:, -1], moment
        values[place] = here
    return values, Status.TIME_REACHED, gradients


def _check_tolerances(rtol: float, atol: float) -> None:
    """Raises `ConfigurationError` for what scipy would change or never reach."""
    if not LEAST_RTOL <= rtol < 1 or not 0 <= atol < math.inf:
        raise ConfigurationError(
            f"tolerances rtol={rtol!r}, atol={atol!r}: rtol is from {LEAST_RTOL:g} to 1, atol is "
            "not negative"
        )


def _checked_method(method: str) -> str:
    if method not in METHODS:
        raise ConfigurationError(f"no reference method {method!r}: known are {METHODS}")
    return method


def _checked_times(times: Sequence[float] | Tensor, state: State) -> np.ndarray:
    """(time,), float64."""
    moments = torch.as_tensor(times, dtype=torch.float64).numpy(force=True)
    increasing = moments.ndim == 1 and len(moments) > 0 and (np.diff(moments) > 0).all()
    if not increasing or not np.isfinite(moments).all():
        raise ConfigurationError(f"times are one-dimensional, finite and increasing, got {times!r}")
    latest = float(state.time.max()) if state.time.numel() else moments[0]
    if moments[0] < latest:
        raise ConfigurationError(f"times begin at {moments[0]:g}, before the start's {latest:g}")
    if state.position[0].dtype != torch.float64:
        raise DataError(
            f"the start has dtype {state.position[0].dtype}, references are in float64: give "
            "start.double(), and for a network module.double() with data in float64"
        )
    return moments
