"""Step sizes by energy: as long as the flow's own energy falls fast enough."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.controls.settings import check_positive, first_steps
from flowopt.core.interfaces import Energy, FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import State
from flowopt.errors import CompatibilityError, ConfigurationError


class LyapunovControl:
    """Accepts steps along which an energy of the flow falls fast enough.

    E(after) − E(before) ≤ λ·h·min(Ė, 0), with Ė the energy's rate along the flow where θ is moved:
    at the old position and gradient, with what else the step has changed. A step that fails is
    tried again with h·shrink; one that holds is followed by h·growth. On a quadratic loss λ ≥ ½
    never steps beyond the minimum along the line, so that basins stay those of the flow.

    With minibatches an energy is an estimate. Before and after are compared on one sample, that of
    the step and of all its trials, so that each decrease is one; it promises nothing about the
    expected energy, which may rise where samples disagree (label noise): see `ExpectedSlope`.

    Args:
        dissipation: λ in [0, 1): share of the rate that a step must reach; 0 asks for plain
            decrease.
        shrink: Factor in (0, 1) after a rejection.
        growth: Factor ≥ 1 after an acceptance.
        energy: Name of an energy of the flow; its first by default.
        first_step: h of the first trial, a float or a (*batch,) tensor.
        largest_step: Bound of h.
        restart: Whether every step begins again with `first_step`, instead of growing.

    Raises:
        ConfigurationError: A number is out of its range.

    Reference:
        Bensaid, "An abstract Lyapunov control optimizer", arXiv 2407.01019; Armijo 1966, Pacific
        J. Math. 16(1), 1.
    """

    rejects = True
    weighs_loss = True
    advances = False
    sampling = "step"

    def __init__(
        self,
        *,
        dissipation: float = 0.5,
        shrink: float = 0.5,
        growth: float = 2.0,
        energy: str | None = None,
        first_step: float | Tensor = 0.1,
        largest_step: float = math.inf,
        restart: bool = False,
    ):
        """See the class."""
        ranges = {
            "dissipation": (dissipation, 0 <= dissipation < 1, "lies in [0, 1)"),
            "shrink": (shrink, 0 < shrink < 1, "lies between 0 and 1"),
            "growth": (growth, 1 <= growth < math.inf, "is finite and at least 1"),
            "largest_step": (largest_step, largest_step > 0, "is positive"),
        }
        for name, (value, fits, meaning) in ranges.items():
            if not fits:
                raise ConfigurationError(f"{name} {meaning}, got {value!r}")
        check_positive(first_step=first_step)
        self.dissipation, self.shrink, self.growth, self.largest_step = (
            torch.tensor(value, dtype=torch.float64)
            for value in (dissipation, shrink, growth, largest_step)
        )
        self.energy = energy
        self.first_step = first_step
        self.restart = restart

    def __repr__(self) -> str:
        """As it is written."""
        numbers = ("dissipation", "shrink", "growth")
        values = [f"{name}={getattr(self, name).item():g}" for name in numbers]
        if self.restart:
            values = [*values[:2], "restart=True"]
        return f"LyapunovControl({', '.join(values)})"

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` for flows with noise or without an energy."""
        if flow.noisy:
            raise CompatibilityError(
                f"flow {flow.name!r} has noise, and {self!r} rejects steps: its energy falls only "
                "on average; use Constant or Schedule"
            )
        if not flow.energies:
            raise CompatibilityError(
                f"flow {flow.name!r} declares no energy, which {self!r} needs: give it one, as in "
                "'energy loss: L'"
            )
        if flow.energy(self._name(flow)).conserved:
            raise CompatibilityError(
                f"energy {self._name(flow)!r} of flow {flow.name!r} is conserved, and {self!r} "
                "waits for it to fall: use Constant, Schedule or ErrorControl"
            )

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Where its energy depends on it."""
        return self._energy(flow).uses_gradient

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, tuple[Tensor, ...]]:
        """First step size for every trajectory, which it remembers."""
        first = first_steps(self.first_step, point)
        return first, (first,)

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Nothing to do."""
        return step_size, memory

    def judge(self, trial: Trial) -> Verdict:
        """Accepts what dissipates enough."""
        (first,) = trial.memory
        energy = self._energy(trial.flow)
        # Not remembered from the step before, which may have ended on another minibatch.
        before, after = energy.value(*trial.before), energy.value(*trial.after)
        lost = torch.clamp(energy.dissipation(*where_moved(trial)), min=0.0)
        accept = trial.finite & (before - after >= self.dissipation * trial.step_size * lost)
        longer = torch.clamp(self.growth * trial.step_size, max=self.largest_step)
        step_size = torch.where(
            accept, first if self.restart else longer, self.shrink * trial.step_size
        )
        return Verdict(accept, step_size, trial.memory)

    def _energy(self, flow: FlowLike) -> Energy:
        return flow.energy(self._name(flow))

    def _name(self, flow: FlowLike) -> str:
        return self.energy or flow.energies[0]


def where_moved(trial: Trial) -> Point:
    """Where θ is moved from: everything else as after the step, with the gradient before it."""
    before, after = trial.before, trial.after.state
    variables = {**after.variables, "theta": before.state.position}
    return Point(replace(after, variables=variables), before.evaluation)
