"""A scheme on a linear flow as the affine Gaussian map that it is: z → Mz + c + Nξ."""

from typing import NamedTuple

import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from flowopt import Flow, State
from flowopt.core.interfaces import Key, Scheme
from flowopt.core.state import Leaves

from .states import GivenNormals, evaluation_of, flat, one_step, unflat
from .states import columns as columns_of


class AffineMap(NamedTuple):
    """Variables stand in the order of their names: all of p, then all of theta.

    The columns of noise belong to the draws of a step, in the order in which it asks for them.
    """

    matrix: Tensor
    offset: Tensor
    noise: Tensor

    def stationary_covariance(self) -> Tensor:
        """The covariance that the map keeps."""
        noise = (self.noise @ self.noise.T).numpy()
        return torch.from_numpy(solve_discrete_lyapunov(self.matrix.numpy(), noise))


class CountingZeros:
    """Noise of zeros that remembers how many leaves it was asked for each time."""

    def __init__(self):
        self.sizes: list[int] = []

    def normal(self, like: Leaves, key: Key) -> Leaves:
        self.sizes.append(len(like))
        return tuple(torch.zeros_like(leaf) for leaf in like)

    def block(self, places: tuple[int, ...], position: Leaves) -> "CountingZeros":
        return self


def affine_map(flow: Flow, scheme: Scheme, problem: object, step_size: float) -> AffineMap:
    """The map of all variables, probed with unit states and unit normals; nothing is sampled."""
    still = _still(flow, problem)
    sizes = draws_of(flow, scheme, problem, still, step_size)
    numbers = flat(still).shape[-1]
    probes = torch.eye(1 + numbers + sum(sizes), dtype=torch.float64)
    states, normals = probes[:, 1 : 1 + numbers], probes[:, 1 + numbers :]
    end = one_step(
        flow,
        scheme,
        problem,
        unflat(states, still),
        step_size,
        GivenNormals([block.unbind(-1) for block in normals.split(sizes, -1)]),
    )
    offset, *columns = flat(end)
    columns = torch.stack([column - offset for column in columns], -1)
    return AffineMap(columns[:, :numbers], offset, columns[:, numbers:])


def _still(flow: Flow, problem: object) -> State:
    """The state of a flow at the origin."""
    position = columns_of(torch.zeros(problem.dim, dtype=torch.float64))
    evaluation = evaluation_of(problem, position)
    return flow.initial_state(position, torch.tensor(0), lambda _: evaluation)


def draws_of(
    flow: Flow, scheme: Scheme, problem: object, state: State, step_size: float
) -> list[int]:
    """For how many leaves each draw of a step is."""
    counter = CountingZeros()
    one_step(flow, scheme, problem, state, step_size, counter)
    return counter.sizes
