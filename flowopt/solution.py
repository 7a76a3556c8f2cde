"""What an integration returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowopt.core.costs import forward_passes
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import ConfigurationError


@dataclass(frozen=True)
class Solution:
    """Result of `integrate`.

    Attributes:
        position: Final θ: (*batch, dim), or the leaves of a network.
        state: Final state, from which another `integrate` continues. It holds nothing of the
            control, which begins anew with its first step.
        status: (*batch,), int8, values of `Status`.
        steps: Accepted steps, (*batch,), int64.
        records: Name → (time, *batch, …); NaN after a trajectory's end.
        times: Name → time of each record, (time, *batch), float64; NaN after the end.
        counts: "gradients", "losses" (alone, where rejecting a step takes no more), "products" with
            the Jacobian of residuals or its transpose (one with the Hessian counts as three),
            "rejected" steps: (*batch,), int64. What is the same for all trajectories may lie in
            memory once: clone it before you write into it.
        loss: At the final position, (*batch,).
        engine: Which engine stepped, and why.
        origin: What was run: flow, scheme, problem, control and seed, as text or numbers.
    """

    position: Any
    state: State
    status: Tensor
    steps: Tensor
    records: dict[str, Tensor]
    times: dict[str, Tensor]
    counts: dict[str, Tensor]
    loss: Tensor
    engine: str
    origin: Mapping[str, str | float]

    @property
    def cost(self) -> Tensor:
        """What it took, (*batch,), int64, in forward passes: `flowopt.forward_passes(counts)`."""
        return forward_passes(self.counts)

    def summary(self) -> str:
        """How many trajectories ended how, one line each."""
        codes, numbers = torch.unique(self.status, return_counts=True)
        pairs = zip(codes.tolist(), numbers.tolist(), strict=True)
        return "\n".join(f"{number} {Status(code)}" for code, number in pairs)

    def to_xarray(self) -> Any:
        """Records and ends as labelled arrays, with what was run as attributes.

        A record `loss` has the dimensions (time, batch), `position` (time, batch, dim); records
        that were taken at different steps have a dimension `time_<name>` each. Times that all
        trajectories share are its coordinate; where they differ, the coordinate `moment` (or
        `moment_<name>`) has those of every trajectory. What stands at the end is called
        `final_position` (for a network `final_<parameter>`), `final_loss`, `status` and `steps`;
        what it took, `gradients`, `losses` and `rejected`.

        Returns:
            An `xarray.Dataset`.

        Raises:
            ConfigurationError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ConfigurationError(
                "to_xarray needs xarray, which is not installed: pip install flowopt[studies]"
            ) from error
        batch = tuple(f"batch{'_' * (n > 0)}{n or ''}" for n in range(self.status.ndim))
        dim = sum(leaf.shape[len(batch) :].numel() for leaf in self.state.position)
        arrays, coordinates = {}, {}
        for dimension, names in _taken_together(self.times).items():
            coordinates |= _times(dimension, batch, self.times[names[0]])
            for name in names:
                series = self.records[name]
                arrays[name] = _labelled(name, (dimension, *batch), series, dim)
        found = self.position if isinstance(self.position, Mapping) else {"position": self.position}
        ends = {f"final_{name}": value for name, value in {**found, "loss": self.loss}.items()}
        for name, value in {
            **ends,
            "status": self.status,
            "steps": self.steps,
            **self.counts,
        }.items():
            arrays[name] = _labelled(name, batch, value, dim)
        dataset = xarray.Dataset(arrays, coordinates, {**self.origin, "engine": self.engine})
        meanings = "; ".join(f"{int(status)}: {status}" for status in Status)
        dataset["status"].attrs["meaning"] = meanings
        return dataset


def _taken_together(times: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Dimension → names of the records whose times it counts."""
    groups: list[list[str]] = []
    for name, moments in times.items():
        same = [g for g in groups if torch.equal(times[g[0]].nan_to_num(), moments.nan_to_num())]
        if same:
            same[0].append(name)
        else:
            groups.append([name])
    if len(groups) == 1:
        return {"time": groups[0]}
    return {f"time_{names[0]}": names for names in groups}


def _times(dimension: str, batch: tuple[str, ...], moments: Tensor) -> dict[str, tuple]:
    """The times of records: along their dimension if all trajectories agree, else for each."""
    flat = moments.reshape(len(moments), -1)
    if flat.shape[1:].numel() and bool((flat == flat[:, :1]).all()):
        return {dimension: (dimension, flat[:, 0].numpy(force=True))}
    name = dimension.replace("time", "moment", 1)
    return {name: ((dimension, *batch), moments.numpy(force=True))}


def _labelled(name: str, leading: tuple[str, ...], value: Tensor, dim: int) -> tuple:
    """An array and its dimensions: those at the end are the parameters', or else the name's own."""
    rest = value.shape[len(leading) :]
    own = ("dim",) if rest == (dim,) else tuple(f"{name}_{n}" for n in range(len(rest)))
    return (*leading, *own), value.numpy(force=True)
