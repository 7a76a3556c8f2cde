"""A scheme on a linear flow as the affine Gaussian map that it is: z → Mz + c + Nξ."""

from typing import NamedTuple

import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from flowopt import Flow
from flowopt.core.interfaces import Key, Scheme
from flowopt.core.state import Leaves

from .states import GivenNormals, flat, one_step, state_of


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


def affine_map(flow: Flow, scheme: Scheme, problem: object, step_size: float) -> AffineMap:
    """The map of all variables, probed with unit states and unit normals; nothing is sampled."""
    dim, names = problem.dim, sorted(flow.variables)
    still = dict.fromkeys(names, torch.zeros(dim, dtype=torch.float64))
    draws = draws_of(flow, scheme, problem, still, step_size)
    numbers = len(names) * dim
    probes = torch.eye(1 + numbers + draws * dim, dtype=torch.float64)
    states, normals = probes[:, 1 : 1 + numbers], probes[:, 1 + numbers :]
    end = one_step(
        flow,
        scheme,
        problem,
        state_of(dict(zip(names, states.split(dim, -1), strict=True))),
        step_size,
        GivenNormals([block.unbind(-1) for block in normals.split(dim, -1)]),
    )
    offset, *columns = flat(end)
    columns = torch.stack([column - offset for column in columns], -1)
    return AffineMap(columns[:, :numbers], offset, columns[:, numbers:])


def draws_of(
    flow: Flow, scheme: Scheme, problem: object, variables: dict[str, Tensor], step_size: float
) -> int:
    """How often a step asks for normals."""
    counter = CountingZeros()
    one_step(flow, scheme, problem, state_of(variables), step_size, counter)
    return len(counter.sizes)
