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
    **{
        name: {"momentum_rate": 2.0, "square_rate": 1.0, "eps": 0.5}
        for name in ("adam", "amsgrad", "adamax", "yogi", "adabelief", "radam")
    },
    "normalised_gradient": {"eps": 0.5},
    "p_gradient": {"eps": 0.5},
    "inna": {"friction": 1.0, "damping": 0.5},
    "nose_hoover": {"temperature": 0.5, "coupling": 0.5},
}
NOISE_FREE = tuple(name for name, entry in FLOWS.items() if not entry.build().noisy)
# Their drifts have corners, or reach a minimum in finite time: no accurate solver follows them.
CORNERED = (
    "amsgrad",
    "adamax",
    "yogi",
    "sign_gradient",
    "normalised_gradient",
    "p_gradient",
    "clipped_gradient",
    "lion",
)
SMOOTH = tuple(name for name in NOISE_FREE if name not in CORNERED)


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
        return flat(flow.drift(here, evaluation_of(problem, here.position, flow))).numpy()

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
