"""Step sizes by energy: as long as the flow's own energy falls fast enough."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.controls.base import Control, Memory
from flowopt.controls.settings import FACTOR, GROWTH, SHARE, bounded_steps, first_steps, number
from flowopt.core.interfaces import Energy, FlowLike, Point, Scheme, Trial, Verdict
from flowopt.errors import CompatibilityError, ConfigurationError

# Of a bracket: after so many geometric means nothing is left of it.
MOST_BISECTIONS = 60


class LyapunovControl(Control):
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
        bisections: How often, once a shorter step holds, the longest that does is looked for
            between it and the one that failed last, by geometric means.
        model: Safety ρ < 1 of a quadratic model of E along the step, which then gives the next h
            after success and failure alike: h·ρ(1 − λ)/(1 − c), at most h·growth, where E has
            changed by c·h·Ė. `shrink` is for steps that leave the finite numbers.
        cumulative: Whether the fall since the start is compared with λ·h·ΣĖ over all steps.

    Published under these settings: LC_EGD (growth 1e4), LC_EGD2 (shrink 1/30, growth 1e4,
    bisections 3), LC_EGD3 (model 0.9, growth 90), LCI_EGD (cumulative), and decrease by restarts
    (dissipation 0, shrink ⅔, restart).

    Raises:
        ConfigurationError: A number is out of its range.

    Reference:
        Bensaid, "An abstract Lyapunov control optimizer", arXiv 2407.01019; Armijo 1966, Pacific
        J. Math. 16(1), 1.
    """

    rejects = True
    weighs_loss = True
    sampling = "step"
    shown = ("dissipation", "shrink", "growth")

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
        bisections: int = 0,
        model: float | None = None,
        cumulative: bool = False,
    ):
        """See the class."""
        self.dissipation = number("dissipation", dissipation, SHARE)
        self.shrink = number("shrink", shrink, FACTOR)
        self.growth = number("growth", growth, GROWTH)
        self.first_step, self.largest_step = bounded_steps(first_step, largest_step)
        self.model = None if model is None else number("model", model, FACTOR)
        if isinstance(bisections, bool) or bisections not in range(MOST_BISECTIONS + 1):
            raise ConfigurationError(
                f"bisections is a whole number up to {MOST_BISECTIONS}, got {bisections!r}"
            )
        self.energy = energy
        self.restart, self.bisections, self.cumulative = restart, bisections, cumulative
        if bisections and model is not None:
            raise ConfigurationError(
                "bisections and model both say which step comes next: give one of them"
            )

    def _written(self) -> list[str]:
        values = super()._written()
        if self.restart:
            values = [*values[:2], "restart=True"]
        if self.model is not None:
            values += [f"model={self.model.item():g}"]
        values += [f"bisections={self.bisections}"] if self.bisections else []
        return values + (["cumulative=True"] if self.cumulative else [])

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` for flows with noise or without an energy."""
        super().check(flow, scheme)
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

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """First step size for every trajectory, which it remembers."""
        first = first_steps(self.first_step, point)
        none = torch.zeros_like(first)
        asked = (self._energy(flow).value(*point), none) if self.cumulative else ()
        bracket = (none, none, none) if self.bisections else ()
        return first, (first, *asked, *bracket)

    def judge(self, trial: Trial) -> Verdict:
        """Accepts what dissipates enough."""
        first, *more = trial.memory
        energy = self._energy(trial.flow)
        # Not remembered from the step before, which may have ended on another minibatch.
        before, after = energy.value(*trial.before), energy.value(*trial.after)
        lost = torch.clamp(energy.dissipation(*where_moved(trial)), min=0.0)
        asked, since = lost, before
        if self.cumulative:
            since, total, *more = more
            asked = total + lost
        holds = since - after >= self.dissipation * trial.step_size * asked
        holds = trial.finite & holds
        accept, shorter, bracket = holds, self.shrink * trial.step_size, ()
        longer = self.growth * trial.step_size
        if self.model is not None:
            fall = (before - after) / trial.step_size
            longer, shorter = self._modelled(self.model, trial, fall, lost)
        if self.bisections:
            accept, shorter, bracket = self._bisected(holds, trial.step_size, shorter, *more)
        longer = first if self.restart else torch.clamp(longer, max=self.largest_step)
        falls = (since, torch.where(accept, asked, total)) if self.cumulative else ()
        step_size = torch.where(accept, longer, shorter)
        return Verdict(accept, step_size, (first, *falls, *bracket))

    def _modelled(
        self, model: Tensor, trial: Trial, fall: Tensor, lost: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next step after success and after failure, by how much of the rate was kept."""
        asked = (1.0 - self.dissipation) * lost
        curved = torch.maximum(lost - fall, model / self.growth * asked)
        factor = model * asked / curved
        known = trial.finite & (factor == factor)
        longer = trial.step_size * torch.where(known, factor, self.growth)
        return longer, trial.step_size * torch.where(known, factor, self.shrink)

    def _bisected(
        self, holds: Tensor, step: Tensor, shorter: Tensor, low: Tensor, high: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Whether to accept, the next trial, and what is known: h that holds, h that fails, trials.

        Both are zero at first; where no trial is left and the last has failed, the longest h that
        holds is tried again.
        """
        inside = low > 0
        begins = holds & ~inside & (high > 0)
        left = torch.where(begins, float(self.bisections), left - (inside & (left > 0)).double())
        accept = holds & ~begins & (left <= 0)
        low = torch.where(holds, step, low)
        high = torch.where(holds, high, step)
        middle = torch.where(left > 0, torch.sqrt(low * high), low)
        step = torch.where(low > 0, middle, shorter)
        return accept, step, tuple(torch.where(accept, 0.0, x) for x in (low, high, left))

    def _energy(self, flow: FlowLike) -> Energy:
        return flow.energy(self._name(flow))

    def _name(self, flow: FlowLike) -> str:
        return self.energy or flow.energies[0]


def where_moved(trial: Trial) -> Point:
    """Where θ is moved from: everything else as after the step, with the gradient before it."""
    before, after = trial.before, trial.after.state
    variables = {**after.variables, "theta": before.state.position}
    return Point(replace(after, variables=variables), before.evaluation)
