"""Reference solutions of flows, to nearly the last digit."""

from dataclasses import replace

import numpy
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from flowopt import Flow, Splitting, State, integrate
from flowopt.registry import FLOWS

from .states import evaluation_of, flat, unflat

# Registry settings are made for networks; these are for curves that one step can follow.
SLOW = {
    "rmsprop": {"square_rate": 1.0, "eps": 0.5},
    "adagrad": {"accumulation": 1.0, "eps": 0.5},
    "adam": {"momentum_rate": 2.0, "square_rate": 1.0, "eps": 0.5},
}
NOISE_FREE = tuple(name for name, entry in FLOWS.items() if not entry.build().noisy)


def slow_flow(name: str) -> Flow:
    """A registered flow whose rates are of order one."""
    return FLOWS[name].build().with_hyperparameters(**SLOW.get(name, {}))


def moving_state(flow: Flow, word: str, problem: object, position: Tensor) -> State:
    """A state of which every variable has left its start."""
    return integrate(flow, Splitting(word), problem, position, step_size=0.2, steps=5).state


def solve(flow: Flow, problem: object, state: State, times: list[float]) -> Tensor:
    """States at later times after `state`, flat, (time, numbers)."""

    def drift(time: float, numbers: numpy.ndarray) -> numpy.ndarray:
        here = replace(unflat(torch.from_numpy(numbers), state), time=state.time + time)
        return flat(flow.drift(here, evaluation_of(problem, here.position))).numpy()

    solution = solve_ivp(
        drift,
        (0.0, times[-1]),
        flat(state).numpy(),
        method="DOP853",
        t_eval=times,
        rtol=3e-14,
        atol=1e-15,
    )
    return torch.from_numpy(solution.y.T)
