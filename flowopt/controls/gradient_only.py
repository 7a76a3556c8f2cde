"""Step sizes by the sign of the slope at the end of a step: a search without losses."""

import torch
from torch import Tensor

from flowopt.controls.base import Control, Memory
from flowopt.controls.settings import (
    BOUND,
    POSITIVE,
    SHARE,
    STRETCH,
    first_steps,
    number,
    numbers,
)
from flowopt.core.interfaces import FlowLike, Point, Trial, Verdict
from flowopt.core.state import Leaves

# What a search is doing, as it remembers it.
BEGINS, LENGTHENS, SHORTENS = 0.0, 1.0, -1.0


class GradientOnly(Control):
    """Searches along a step for where the slope changes sign, by gradients alone: GOLS-I.

    With the slopes s₀ = ⟨∇L(θ), Δθ⟩ at the start and s = ⟨∇L(θ + Δθ), Δθ⟩ at the end of a trial:

    - the first trial of a step is taken if 0 ≤ s ≤ c·|s₀|;
    - where s < 0, the step is doubled until s ≥ 0, and that trial is taken;
    - else it is halved until s < 0, and that trial is taken.

    The next search begins with the step taken. With minibatches a trial ends on a fresh one, the
    gradient on which is that with which the next step begins: the sign changes where the expected
    one does, although the losses of different minibatches have no order. A trial that is not taken
    costs a gradient.

    Args:
        factor: By which a step is lengthened or shortened.
        curvature: c in [0, 1).
        first_step: h of the first trial, a float or a (*batch,) tensor.
        longest_move: |Δθ| beyond which a step is not lengthened.
        smallest_step: h below which it is not shortened.
        largest_step: h beyond which it is not lengthened: implicit steps move no further then.

    Raises:
        ConfigurationError: A number is out of its range.

    Reference:
        Kafka & Wilke 2019, arXiv 1903.09383, GOLS-I.
    """

    rejects = True
    shown = ("factor", "curvature")

    def __init__(
        self,
        *,
        factor: float = 2.0,
        curvature: float = 0.9,
        first_step: float | Tensor = 0.1,
        longest_move: float = 1.0,
        smallest_step: float = 1e-8,
        largest_step: float = 1e7,
    ):
        """See the class."""
        self.factor = number("factor", factor, STRETCH)
        self.curvature = number("curvature", curvature, SHARE)
        self.longest_move = number("longest_move", longest_move, BOUND)
        self.smallest_step = number("smallest_step", smallest_step, POSITIVE)
        self.largest_step = number("largest_step", largest_step, POSITIVE)
        self.first_step = numbers("first_step", first_step, POSITIVE)

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Yes: it is what the step's end is judged by."""
        return True

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """First step size for every trajectory, and that a search begins."""
        first = first_steps(self.first_step, point)
        return first, (torch.full_like(first, BEGINS),)

    def judge(self, trial: Trial) -> Verdict:
        """Takes the trial at which the sign changes; else a longer or a shorter one follows."""
        (doing,) = trial.memory
        step = trial.step_size
        ends = (trial.before.state.position, trial.after.state.position)
        move = tuple(end - begin for begin, end in zip(*ends, strict=True))
        at_start = _slope(trial.before, move)
        at_end = _slope(trial.after, move)
        falls = at_end < 0.0
        flat = ~falls & (at_end <= self.curvature * torch.abs(at_start))
        length = torch.sqrt(trial.after.state.squared_norm(move))
        far = (self.factor * length > self.longest_move) | (self.factor * step > self.largest_step)
        short = step < self.factor * self.smallest_step
        lengthened = (doing == LENGTHENS) & ~falls
        shortened = (doing == SHORTENS) & (falls | short)
        begun = (doing == BEGINS) & (flat | (~falls & short))
        accept = trial.finite & (lengthened | shortened | begun | (falls & far))
        longer = trial.finite & falls & (doing != SHORTENS)
        changed = torch.where(longer, self.factor * step, step / self.factor)
        doing = torch.where(longer, torch.full_like(step, LENGTHENS), SHORTENS)
        doing = torch.where(accept, BEGINS, doing)
        return Verdict(accept, torch.where(accept, step, changed), (doing,))


def _slope(point: Point, move: Leaves) -> Tensor:
    """⟨∇L, Δθ⟩, (*batch,), float64."""
    pairs = zip(point.evaluation.gradient, move, strict=True)
    return point.state.total(g * part for g, part in pairs)
