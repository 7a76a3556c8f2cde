"""Brownian paths, and noise that is made of one."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torchsde import BrownianInterval

from flowopt.core.interfaces import Increment, Key
from flowopt.core.state import Leaves
from flowopt.errors import CompatibilityError, ConfigurationError

# Times of a path closer than this share of its length are one.
RESOLUTION = 1e-9


class BrownianPath(BrownianInterval):
    """A Brownian path that torchsde's solvers and our schemes may share, with Lévy areas.

    What it gives depends on where it was asked before, so compare runs on one and the same object.

    Attributes:
        begin: First time.
        end: Last time.

    Reference:
        Kidger, Foster, Li & Lyons 2021, NeurIPS 34, 18747.
    """

    def __init__(
        self,
        begin: float,
        end: float,
        *,
        size: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ):
        """Draws the ends; `SdeSystem.path` knows size, dtype and device."""
        if not (math.isfinite(begin) and math.isfinite(end) and begin < end):
            raise ConfigurationError(f"a path begins before it ends, got {begin!r} and {end!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigurationError(f"a seed is a whole number from 0, got {seed!r}")
        super().__init__(
            begin,
            end,
            size=size,
            dtype=dtype,
            device=device,
            entropy=seed,
            tol=RESOLUTION * 10.0 ** math.floor(math.log10(end - begin)),
            levy_area_approximation="space-time",
        )
        self.begin, self.end = begin, end


class PathNoise:
    """Normals that are the increments of a Brownian path over the root of their duration.

    A flow stepped with it, by any scheme and any step size, and torchsde's solvers on the same path
    follow one and the same noise, so that their strong errors compare. A map that is exact in law
    (the O of Langevin dynamics) takes its normal from the increment too, which is a strong
    approximation of order 1. Trajectories step together; one that has ended, as by diverging, stays
    where it is.

    Args:
        path: Gives increments (batch, channels).
        channels: Name of each Wiener process → its channels.
        part: Places of a block's leaves of θ, and all leaves; None for all.
    """

    def __init__(
        self,
        path: BrownianPath,
        channels: Mapping[str, slice],
        part: tuple[tuple[int, ...], Leaves] | None = None,
    ):
        """See the class."""
        self._path, self._channels, self._part = path, channels, part
        self._times: list[Tensor] = []

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Standard normals in the shapes of `like`.

        Raises:
            CompatibilityError: The draw stands for no increment of one of the flow's Wiener
                processes, is outside the path, or trajectories are at different times.
        """
        increment = key.increment
        if increment is None or increment.wiener not in self._channels:
            raise CompatibilityError(
                "this scheme draws a normal that is no increment of one of the flow's Wiener "
                f"processes {list(self._channels)}, so a Brownian path can not drive it: use a "
                "word whose letters have their noise to themselves"
            )
        begin, end = self._interval(increment)
        slack = RESOLUTION * (self._path.end - self._path.begin)
        if begin < self._path.begin - slack or end > self._path.end + slack:
            raise CompatibilityError(
                f"a step from {begin:g} to {end:g} leaves the Brownian path, which goes from "
                f"{self._path.begin:g} to {self._path.end:g}: make it longer"
            )
        moved = self._path(max(begin, self._path.begin), min(end, self._path.end))
        moved = moved[:, self._channels[increment.wiener]] / (end - begin) ** 0.5
        batch = increment.time.ndim
        sizes = [leaf.shape[batch:].numel() for leaf in like]
        pieces = self._own(moved, sum(sizes), batch).split(sizes, -1)
        return tuple(
            piece.reshape(leaf.shape).to(leaf) for piece, leaf in zip(pieces, like, strict=True)
        )

    def _interval(self, increment: Increment) -> tuple[float, float]:
        """Where an increment begins and ends, which is the same for all that still move."""
        times, steps = torch.broadcast_tensors(increment.time, increment.step_size)
        moving = times == times.max()
        # Those that lag have stood still since the last draw.
        ended = times == self._times[0] if self._times else torch.zeros_like(moving)
        self._times[:] = [times]
        if not bool((moving | ended).all() & (steps == steps.max()).all()):
            raise CompatibilityError(
                "trajectories are at different times or have different step sizes, and a Brownian "
                "path is asked at one time: run them one by one"
            )
        time, step_size = float(times.max()), float(steps.max())
        first, last = increment.share
        return time + first * step_size, time + last * step_size

    def block(self, places: tuple[int, ...], position: Leaves) -> "PathNoise":
        """The increments of some leaves of θ, where a process has those of all."""
        part = PathNoise(self._path, self._channels, (places, position))
        part._times = self._times
        return part

    def _own(self, moved: Tensor, wanted: int, batch: int) -> Tensor:
        """The channels of the block, of a process that has channels for all elements of θ."""
        if self._part is None or moved.shape[-1] == wanted:
            return moved
        places, position = self._part
        pieces = moved.split([leaf.shape[batch:].numel() for leaf in position], -1)
        return torch.cat([pieces[place] for place in places], -1)

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Raises `CompatibilityError`: a Brownian path has no uniforms."""
        raise CompatibilityError("a Brownian path gives normals, and this flow asks for uniforms")
