"""Flows as the stochastic equations that torchsde integrates."""

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor

from flowopt.adapters.brownian import BrownianPath, PathNoise
from flowopt.adapters.system import Placed, System
from flowopt.core.interfaces import FlowLike, Oracle, Wiener
from flowopt.core.oracle import Problem
from flowopt.errors import CompatibilityError, ConfigurationError

READINGS = ("ito", "stratonovich")


class SdeSystem(System):
    """A flow as dy = f(t, y) dt + g(t, y) dW on packed states; see `to_torchsde`.

    Attributes:
        noise_type: "diagonal", "additive" or "general", in torchsde's sense.
        sde_type: "ito" or "stratonovich".
    """

    def __init__(self, flow: FlowLike, problem: Problem | Oracle, sde_type: str):
        """See `to_torchsde`."""
        super().__init__(flow, problem)
        self.noise_type, self.sde_type = _noise_type(flow.wiener), sde_type

    def pack(self, start: object) -> Tensor:
        """A start as a packed state (batch, numbers); a single trajectory is a batch of one.

        Args:
            start: (batch, dim), parameters by name for a network, or a `solution.state`.

        Raises:
            CompatibilityError: There is more than one axis of trajectories, or the flow has no
                drift at its initial state.
            DataError: The start has the wrong shape or type.
        """
        packed = self.packed(self.state(start))
        if packed.ndim > 2:
            raise CompatibilityError(
                f"torchsde steps one axis of trajectories, got {tuple(packed.shape[:-1])}: "
                "start.flatten(0, -2)"
            )
        return packed.reshape(-1, packed.shape[-1])

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift, (batch, numbers)."""
        return self.drift(t, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion: (batch, numbers), or (batch, numbers, channels) if it is not diagonal."""
        state = self.unpack(y, t)
        flow = self._fitted(state.time)
        amplitudes = flow.diffusion(state, lambda here: self.evaluate(here.position))
        if self.noise_type == "diagonal":
            return torch.stack([self.packed(tangent) for tangent in amplitudes.values()]).sum(0)
        rows, channels = _slices(self.lengths(y)), self._channels(y)
        matrix = y.new_zeros((*y.shape, self._count(y)))
        for wiener in flow.wiener:
            column = self.packed(amplitudes[wiener.name])
            for variable in wiener.drives:
                block = torch.diag_embed(column[..., rows[variable]])
                matrix[..., rows[variable], channels[wiener.name]] = block
        return matrix

    def path(self, packed: Tensor, begin: float, end: float, *, seed: int = 0) -> BrownianPath:
        """A Brownian path, to be shared by solvers, schemes and step sizes.

        Args:
            packed: A packed start, (batch, numbers).
            begin: First time.
            end: Last time.
            seed: Of the path.

        Returns:
            What `torchsde.sdeint` takes as `bm`, and `noise` as its path.

        Raises:
            ConfigurationError: The times or the seed are of no use.
        """
        size = (len(packed), self._count(packed))
        dtype, device = packed.dtype, packed.device
        return BrownianPath(begin, end, size=size, dtype=dtype, device=device, seed=seed)

    def noise(self, path: BrownianPath) -> PathNoise:
        """The noise with which `integrate` follows a path of this system."""
        return PathNoise(path, self._channels(path))

    def _count(self, like: Placed) -> int:
        """How many channels a path has: where all noise is diagonal, one for each number."""
        if self.noise_type == "diagonal":
            return sum(self.lengths(like).values())
        return max(columns.stop for columns in self._channels(like).values())

    def _channels(self, like: Placed) -> dict[str, slice]:
        """Where each Wiener process lies among the channels of a path."""
        lengths = self.lengths(like)
        if self.noise_type == "diagonal":
            rows = _slices(lengths)
            return {wiener.name: rows[wiener.drives[0]] for wiener in self.flow.wiener}
        return _slices({wiener.name: lengths[wiener.drives[0]] for wiener in self.flow.wiener})


def to_torchsde(flow: FlowLike, problem: Problem | Oracle, *, sde_type: str = "ito") -> SdeSystem:
    """A flow on a problem as an equation for `torchsde.sdeint`.

        system = to_torchsde(flow, problem)
        packed = system.pack(start)
        path = system.path(packed, 0.0, 1.0)
        states = torchsde.sdeint(system, packed, [0.0, 1.0], bm=path, dt=0.01, method="srk")
        position = system.position(states)
        noise = system.noise(path)
        solution = integrate(flow, scheme, problem, start, step_size=0.01, steps=100, noise=noise)

    Args:
        flow: The equation, with noise, which it reads in Itô's sense.
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        sde_type: "ito", or "stratonovich" where both readings are the same, for torchsde's
            methods of that kind.

    Returns:
        An object with f, g, noise_type and sde_type; and with `pack`, `unpack` and `position` of
        packed states, `path` and `noise`.

    Raises:
        CompatibilityError: The flow has no noise, or the readings differ.
        ConfigurationError: `sde_type` is unknown.

    Reference:
        Li, Wong, Chen & Duvenaud 2020, AISTATS 108, 3870.
    """
    if not flow.noisy:
        raise CompatibilityError(f"flow {flow.name!r} has no noise: use to_torchdiffeq")
    if sde_type not in READINGS:
        raise ConfigurationError(f"no reading {sde_type!r}: known are {READINGS}")
    if sde_type == "stratonovich" and flow.noise_kind == "driven":
        raise CompatibilityError(
            f"flow {flow.name!r} has noise whose amplitude depends on what it drives, so that "
            "Itô's and Stratonovich's readings differ: use sde_type='ito'"
        )
    return SdeSystem(flow, problem, sde_type)


def _noise_type(processes: tuple[Wiener, ...]) -> str:
    """The strongest of torchsde's types that holds."""
    driven = [variable for wiener in processes for variable in wiener.drives]
    apart = all(len(wiener.drives) == 1 for wiener in processes) and len({*driven}) == len(driven)
    if apart and all({*wiener.depends_on} <= {*wiener.drives} for wiener in processes):
        return "diagonal"
    return "general" if any(wiener.depends_on for wiener in processes) else "additive"


def _slices(lengths: Mapping[str, int]) -> dict[str, slice]:
    ends = accumulate(lengths.values())
    return {name: slice(end - lengths[name], end) for name, end in zip(lengths, ends, strict=True)}
