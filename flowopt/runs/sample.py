"""Samples of a flow with noise, and what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from flowopt.core.interfaces import FlowLike, Oracle, Scheme
from flowopt.core.oracle import Problem
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.diagnostics import effective_sample_size, r_hat
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.integrate import integrate
from flowopt.solution import Solution


@dataclass(frozen=True)
class Samples:
    """Positions along trajectories, after burn-in.

    Attributes:
        position: (sample, *batch, dim); for a network its parameters in one row.
        solution: How the run ended; `sample` continues from `solution.state`.
    """

    position: Tensor
    solution: Solution

    @property
    def chains(self) -> Tensor:
        """(sample, chain, dim), the batch in one row."""
        return self.position.reshape(len(self.position), -1, self.position.shape[-1])

    @cached_property
    def effective_size(self) -> Tensor:
        """Effective number of independent samples of each coordinate, (dim,), by all chains.

        See `flowopt.diagnostics.effective_sample_size` for the estimator.
        """
        return effective_sample_size(self.chains)

    @cached_property
    def r_hat(self) -> Tensor:
        """Split R̂ of each coordinate, (dim,): near 1 where chains agree.

        See `flowopt.diagnostics.r_hat` for the estimator.
        """
        return r_hat(self.chains)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean of each coordinate, (dim,)."""
        deviation = self.chains.to(torch.float64).flatten(0, 1).std(0)
        return deviation / self.effective_size.sqrt()


def sample(
    flow: FlowLike,
    scheme: Scheme,
    problem: Problem | Oracle,
    start: object,
    *,
    step_size: float | Tensor,
    samples: int,
    burn_in: int = 0,
    thinning: int = 1,
    seed: int = 0,
    compile: bool | str = "auto",
    progress: bool | Callable[[int], None] = False,
    device: torch.device | str | None = None,
) -> Samples:
    """Steps a flow with noise and keeps every so many positions.

    Every trajectory of the start is a chain. Ctrl-C returns what there is.

    Args:
        flow: The equation, with noise.
        scheme: How it becomes a step.
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        start: (*batch, dim), parameters by name for a network, or an earlier `solution.state`.
        step_size: h, time per step; one number or one per trajectory.
        samples: How many are kept of each trajectory.
        burn_in: Steps before the first of them is due.
        thinning: Steps between them.
        seed: Of noise and minibatches.
        compile: As for `integrate`.
        progress: As for `integrate`.
        device: As for `integrate`.

    Returns:
        Positions, effective sample sizes, R̂ and standard errors.

    Raises:
        CompatibilityError: The flow has no noise, or flow, scheme and problem do not fit.
        ConfigurationError: An argument is missing or out of range.
        DataError: The start or the loss has the wrong shape or type.
    """
    for name, value, least in (
        ("samples", samples, 1),
        ("burn_in", burn_in, 0),
        ("thinning", thinning, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name} is a whole number from {least}, got {value!r}")
    if hasattr(flow, "noisy") and not flow.noisy:
        raise CompatibilityError(f"flow {flow.name!r} has no noise, so it samples nothing")
    run = partial(
        integrate,
        flow,
        scheme,
        problem,
        step_size=step_size,
        seed=seed,
        compile=compile,
        progress=progress,
        device=device,
    )
    if burn_in:
        burnt = run(start, steps=burn_in)
        if bool((burnt.status == Status.INTERRUPTED).any()):
            still = run(burnt.state, steps=0, record={"position": 1})
            return Samples(still.records["position"][1:], burnt)
        # A short burn-in does not decide which engine samples.
        engine = start.native if isinstance(start, State) else None
        start = replace(burnt.state, native=engine)
    solution = run(start, steps=samples * thinning, record={"position": thinning})
    # The first record is where sampling begins, not a sample.
    return Samples(solution.records["position"][1:], solution)
