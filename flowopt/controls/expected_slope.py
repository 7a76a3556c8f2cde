"""Step sizes by slopes at the end of a step, as the next minibatch sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowopt.controls.base import Control, Memory
from flowopt.controls.settings import PART, POSITIVE, first_steps, number, numbers
from flowopt.core.interfaces import FlowLike, Point, Trial, Verdict
from flowopt.core.state import Leaves, State, lift
from flowopt.errors import ConfigurationError

# Shares by which the means of a cosine and of its square are renewed at every step.
MEAN_SHARE, SQUARE_SHARE = 0.05, 0.01
# Sureness of "the step is too long" that is borne: with large steps the sharpest directions keep
# overshooting while the others still gain.
TOLERATED = 0.5
# Along a path of more steps each changes h by as much less as it is longer, so that a change can
# show in the mean of the path before the next one.
SETTLED = 50
# Numbers that the path is remembered by, besides its mean.
KEPT = 7


class Rule(Protocol):
    """What log h loses at a step, before the gain.

    Attributes:
        gain: The usual one.
        remembers_position: Whether its memory ends with a position, leaf by leaf.
    """

    @property
    def gain(self) -> float:
        """The usual gain."""
        ...

    @property
    def remembers_position(self) -> bool:
        """Whether its memory ends with a position."""
        ...

    def start(self, state: State) -> Memory:
        """The memory before the first step."""
        ...

    def excess(self, trial: Trial) -> tuple[Tensor, Memory]:
        """What log h loses, (*batch,), and the memory after the trial."""
        ...


@dataclass(frozen=True)
class OfStep:
    """By the cosine at the end of the last step, without memory."""

    function: Callable[[Tensor], Tensor]
    gain: float
    remembers_position: bool = False

    def start(self, state: State) -> Memory:
        """Nothing."""
        return ()

    def excess(self, trial: Trial) -> tuple[Tensor, Memory]:
        """The function of the cosine."""
        return self.function(end_cosine(trial, trial.before.state.position)), ()


@dataclass(frozen=True)
class OfPath:
    """By how surely the loss rises away from the mean of the path, or along the last steps."""

    gain: float = 0.1
    remembers_position: bool = True

    def start(self, state: State) -> Memory:
        """Steps of the path, the last h, weight of the squares, both cosines' moments, the mean."""
        none = torch.zeros_like(state.time)
        return (*[none] * KEPT, *(leaf.clone() for leaf in state.position))

    def excess(self, trial: Trial) -> tuple[Tensor, Memory]:
        """The larger of both, each in [−1, 1] and small where slopes are noise."""
        steps, last, weight, *moments = trial.memory[:KEPT]
        middle = trial.memory[KEPT:]
        # In steps as long as this one: those of a beginning that was a thousand times shorter have
        # led nowhere, and would hold the mean at the start and h where it is.
        steps = steps * torch.where(last < trial.step_size, last / trial.step_size, 1.0) + 1.0
        weight = weight + SQUARE_SHARE * (1.0 - weight)
        far, far_moments = _sureness(end_cosine(trial, middle), moments[:2], weight)
        began = trial.before.state.position
        near, near_moments = _sureness(end_cosine(trial, began), moments[2:], weight)
        near = torch.clamp(near - TOLERATED, min=-1.0)
        excess = torch.maximum(far * torch.abs(far), near * torch.abs(near))
        excess = excess * torch.clamp(SETTLED / steps, max=1.0)
        position = trial.after.state.position
        share = 1.0 / (steps + 1.0)
        middle = tuple(
            mean + lift(share, mean) * (leaf - mean)
            for mean, leaf in zip(middle, position, strict=True)
        )
        kept = (steps, trial.step_size, weight, *far_moments, *near_moments)
        return excess, (*kept, *middle)


def _sureness(
    cosine: Tensor, moments: Sequence[Tensor], weight: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Mean of the last cosines in units of their size, in [−1, 1], and the moments, renewed.

    Args:
        cosine: The last one, (*batch,).
        moments: Mean of those before, and of their squares.
        weight: That of all squares together, as both means begin at zero.
    """
    mean, square = moments
    mean = mean + MEAN_SHARE * (cosine - mean)
    square = square + SQUARE_SHARE * (cosine * cosine - square)
    size = torch.sqrt(square / weight)
    sure = torch.where(size > 0.0, mean / size, 0.0)
    return torch.clamp(sure, min=-1.0, max=1.0), (mean, square)


RULES: dict[str, Rule] = {
    "path": OfPath(),
    "cos": OfStep(lambda cosine: cosine, gain=0.1),
    "sign": OfStep(torch.sign, gain=0.01),
}


class ExpectedSlope(Control):
    """Lengthens steps while the next minibatch finds the loss still falling away from the path.

    s = ⟨∇L_{n+1}(θ_{n+1}), θ_{n+1} − a⟩ costs nothing: it is the gradient with which the next step
    begins. On a fresh minibatch E s is the slope of the expected loss at θ_{n+1}, along the line
    from a; for a convex loss E s ≤ 0 implies L(θ_{n+1}) ≤ L(a). With r the cosine between both,
    after every step h ← h·exp(−gain·excess), where excess is

    - "path": the larger of u|u| and w|w|, times min(1, 50/n): u = mean(r)/√mean(r²) with a the
      mean of the path so far, w the same with a = θ_n, less ½; means over the last 20 and 100
      steps. Steps shrink where going back to the mean of the path would help, or where most of them
      end beyond the minimum of their line. n, and with it the mean, counts the steps in units of
      the last, n ← n·min(1, h_before/h) + 1: while h grows from far below, what was is forgotten;
    - "cos": r with a = θ_n;  "sign": its sign. Both ask what the next step alone gains, and so
      shrink too early where sharp directions are noisy.

    Never rejects, and is made for minibatches: with all rows at every step nothing tells of an
    overshoot before it happens, where `LyapunovControl` tries again. Noise of the flow (Langevin)
    is part of the displacement. "path" keeps a copy of θ, its mean.

    Args:
        gain: Share by which log h changes at most, or for "cos" where r = ±1; the rule's own where
            not given.
        first_step: h after the start, a float or a (*batch,) tensor.
        start: Share of `first_step` with which the first step is made, from where it grows; so it
            is at every start of `integrate`, that from an earlier `solution.state` too.
        rule: "path", "cos" or "sign".

    Raises:
        ConfigurationError: A number is out of its range, or the rule is none of the three.

    Reference:
        The sign of the slope at fresh samples is that of gradient-only line search, Kafka & Wilke
        2019, arXiv 1903.09383; r with g_n for Δθ is hypergradient descent, Baydin et al. 2018,
        arXiv 1703.04782; with a = θ_0, s is what Mechanic learns from, Cutkosky, Defazio & Mehta
        2023, arXiv 2306.00144. Why a single step is too near a goal: Wu et al. 2018,
        arXiv 1803.02021.
    """

    shown = ("gain",)

    def __init__(
        self,
        *,
        gain: float | None = None,
        first_step: float | Tensor = 1e-3,
        start: float = 1e-3,
        rule: str = "path",
    ):
        """See the class."""
        if not isinstance(rule, str) or rule not in RULES:
            raise ConfigurationError(f"rule={rule!r}: give one of {', '.join(map(repr, RULES))}")
        gain = RULES[rule].gain if gain is None else gain
        self.gain = number("gain", gain, POSITIVE)
        self.share = number("start", start, PART)
        self.first_step = numbers("first_step", first_step, POSITIVE)
        self.rule, self.remembers_position = rule, RULES[rule].remembers_position

    def _written(self) -> list[str]:
        return [*super()._written(), f"rule={self.rule!r}"]

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Yes: it is what the step's end is judged by."""
        return True

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """The first step size, and the rule's memory."""
        first = first_steps(self.share * self.first_step, point)
        return first, RULES[self.rule].start(point.state)

    def judge(self, trial: Trial) -> Verdict:
        """Accepts; the next step is longer where the loss still falls."""
        excess, memory = RULES[self.rule].excess(trial)
        return Verdict(None, trial.step_size * torch.exp(-self.gain * excess), memory)


def end_cosine(trial: Trial, origin: Leaves) -> Tensor:
    """Cosine between the gradient at a step's end and the way there, (*batch,), float64.

    Zero where one of the two is, or is not finite.

    Args:
        trial: Gives the end.
        origin: Where the way begins.
    """
    state, evaluation = trial.after
    way = tuple(end - begin for end, begin in zip(state.position, origin, strict=True))
    pairs = zip(evaluation.gradient, way, strict=True)
    slope = state.total(slope * part for slope, part in pairs)
    # Two roots: a product of squares leaves the range of numbers sooner.
    size = torch.sqrt(state.squared_norm(evaluation.gradient))
    size = size * torch.sqrt(state.squared_norm(way))
    cosine = torch.where(size > 0.0, slope / size, 0.0)
    return torch.where(cosine == cosine, cosine, 0.0)
