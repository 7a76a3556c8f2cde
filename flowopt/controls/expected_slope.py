"""Step sizes by the slope at the end of a step, as the next minibatch sees it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.core.interfaces import FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import State, per_trajectory, squared_norm, sum_elements
from flowopt.errors import ConfigurationError

Memory = tuple[Tensor, ...]

# Shares by which the means of the cosine and of its square are renewed at every step.
MEAN_SHARE, SQUARE_SHARE = 0.05, 0.01
# Sureness of "too long" at which steps are left as they are: at the noise floor the expected slope
# is positive for any step, and a rule that obeys it shrinks steps before training is over.
TOLERATED = 0.1


def _cosine(cosine: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    return cosine, memory


def _sign(cosine: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    return torch.sign(cosine), memory


def _sureness(cosine: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """Square, signed, of the mean of the last cosines in units of their size."""
    mean, square, weight = memory
    mean = mean + MEAN_SHARE * (cosine - mean)
    square = square + SQUARE_SHARE * (cosine * cosine - square)
    # Like Adam's correction: both means start at zero.
    weight = weight + SQUARE_SHARE * (1.0 - weight)
    size = torch.sqrt(square / weight)
    sure = torch.where(size > 0.0, mean / size, 0.0)
    sure = torch.clamp(sure - TOLERATED, min=-1.0, max=1.0)
    return sure * torch.abs(sure), (mean, square, weight)


@dataclass(frozen=True)
class Rule:
    """What log h loses at a step, before the gain.

    Attributes:
        excess: Cosine at the step's end, (*batch,), and memory → (*batch,), and memory.
        gain: The usual one.
        remembered: Numbers of the memory, all zero at the start.
    """

    excess: Callable[[Tensor, Memory], tuple[Tensor, Memory]]
    gain: float
    remembered: int = 0


RULES = {
    "sure": Rule(_sureness, 0.1, remembered=3),
    "cos": Rule(_cosine, 0.1),
    "sign": Rule(_sign, 0.01),
}


class ExpectedSlope:
    """Lengthens steps while the next minibatch finds the loss still falling at their end.

    s = ⟨∇L_{n+1}(θ_{n+1}), θ_{n+1} − θ_n⟩ costs nothing: it is the gradient with which the next
    step begins. On a fresh minibatch E s ≤ 0 just where the step ends before the minimum of the
    expected loss along its line. With r = s/(|∇L_{n+1}||θ_{n+1} − θ_n|), after every step
    h ← h·exp(−gain·excess), where excess is

    - "cos": r;  "sign": the sign of r;
    - "sure": w·|w|, w = mean(r)/√mean(r²) − 0.1 from means over the last 20 and 100 steps: nearly
      ∓1 where the last slopes agree, nearly 0 where they are noise.

    Never rejects. With all rows at every step it is the slope of the loss itself. Noise of the flow
    (Langevin) is part of the displacement.

    Args:
        gain: Share by which log h changes at most, or for "cos" where r = ±1; the rule's own where
            not given.
        first_step: h after the start, a float or a (*batch,) tensor.
        start: Share of `first_step` with which the first step is made, from where it grows.
        rule: "sure", "cos" or "sign".

    Raises:
        ConfigurationError: A number is out of its range, or the rule is none of the three.

    Reference:
        The sign of the slope at fresh samples is that of gradient-only line search, Kafka & Wilke
        2019, arXiv 1903.09383; r with g_n for Δθ is hypergradient descent, Baydin et al. 2018,
        arXiv 1703.04782.
    """

    rejects = False
    weighs_loss = False
    advances = False
    sampling = "trial"

    def __init__(
        self,
        *,
        gain: float | None = None,
        first_step: float | Tensor = 1e-3,
        start: float = 1e-3,
        rule: str = "sure",
    ):
        """See the class."""
        if rule not in RULES:
            raise ConfigurationError(f"rule={rule!r}: give one of {', '.join(map(repr, RULES))}")
        gain = RULES[rule].gain if gain is None else gain
        for name, value, fits, meaning in (
            ("gain", gain, 0 < gain < math.inf, "is positive and finite"),
            ("start", start, 0 < start <= 1, "lies in (0, 1]"),
        ):
            if not fits:
                raise ConfigurationError(f"{name} {meaning}, got {value!r}")
        if not bool((real_tensor("first_step", first_step) > 0).all()):
            raise ConfigurationError(f"first_step is positive, got {first_step!r}")
        self.gain = torch.tensor(gain, dtype=torch.float64)
        self.first_step, self.share, self.rule = first_step, start, rule

    def __repr__(self) -> str:
        """As it is written."""
        return f"ExpectedSlope(gain={self.gain.item():g}, rule={self.rule!r})"

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Fits every flow and scheme."""

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Yes: it is what the step's end is judged by."""
        return True

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """The first step size, and the rule's memory."""
        time = point.state.time
        first = torch.as_tensor(self.first_step, dtype=torch.float64, device=time.device)
        first = per_trajectory("first_step", self.share * first, point.state.batch).clone()
        return first, tuple(torch.zeros_like(time) for _ in range(RULES[self.rule].remembered))

    def refresh(
        self, state: State, step_size: Tensor, memory: Memory, trials: int
    ) -> tuple[Tensor, Memory]:
        """Nothing to do."""
        return step_size, memory

    def judge(self, trial: Trial) -> Verdict:
        """Accepts; the next step is longer where this one ended on a falling slope."""
        cosine = end_cosine(trial)
        excess, memory = RULES[self.rule].excess(cosine, trial.memory)
        return Verdict(None, trial.step_size * torch.exp(-self.gain * excess), memory)


def end_cosine(trial: Trial) -> Tensor:
    """Cosine between the gradient at a step's end and the way there, (*batch,), float64.

    Zero where one of the two is, or is not finite.
    """
    state, evaluation = trial.after
    batch_dimensions = state.time.ndim
    before = trial.before.state.position
    way = tuple(end - begin for end, begin in zip(state.position, before, strict=True))
    products = [
        sum_elements(slope * part, batch_dimensions)
        for slope, part in zip(evaluation.gradient, way, strict=True)
    ]
    slope = sum(products[1:], start=products[0])
    # Two roots: a product of squares leaves the range of numbers sooner.
    size = torch.sqrt(squared_norm(evaluation.gradient, batch_dimensions))
    size = size * torch.sqrt(squared_norm(way, batch_dimensions))
    cosine = torch.where(size > 0.0, slope / size, 0.0)
    return torch.where(cosine == cosine, cosine, 0.0)
