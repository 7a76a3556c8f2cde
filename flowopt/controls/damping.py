"""Damping rules of Levenberg–Marquardt: step sizes h = 1/μ by what a step has gained."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowopt.controls.base import Control, Memory
from flowopt.controls.settings import POSITIVE, STRETCH, number, numbers
from flowopt.core.interfaces import FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import Leaves, lift, per_trajectory
from flowopt.errors import CompatibilityError, ConfigurationError

Answer = tuple[Tensor, Tensor, Memory]


class DampingRule(Protocol):
    """Says which steps are taken, and by how much the damping changes."""

    def start(self, point: Point) -> tuple[Tensor, ...]:
        """What it remembers at first."""
        ...

    def judge(self, trial: Trial) -> Answer:
        """Accept (*batch,), factor of μ (*batch,), and what it remembers."""
        ...


@dataclass(frozen=True)
class HaganMenhaj:
    """Takes what lowers the loss: μ/factor then, μ·factor else.

    Attributes:
        factor: More than 1.

    Reference:
        Hagan & Menhaj 1994, IEEE Trans. Neural Netw. 5(6), 989; Marquardt 1963, J. SIAM 11(2), 431.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        """Checks the factor."""
        number("factor", self.factor, STRETCH)

    def start(self, point: Point) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def judge(self, trial: Trial) -> Answer:
        """By the loss alone."""
        accept = trial.finite & (loss_change(trial) < 0)
        raised = torch.full_like(trial.step_size, self.factor)
        return accept, torch.where(accept, 1.0 / raised, raised), ()


@dataclass(frozen=True)
class Fletcher:
    """Takes what lowers the loss; μ follows the ratio ρ of gained to predicted decrease.

    μ/2 where ρ > ¾, and μ·ν where ρ < ¼, with ν = 2 − (change of loss)/(step·∇L) within 2 and 10,
    from the parabola along the step.

    Reference:
        Fletcher 1971, AERE report R 6799, without its cut-off of μ at zero.
    """

    def start(self, point: Point) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def judge(self, trial: Trial) -> Answer:
        """By the gain ratio."""
        ratio = gain_ratio(trial)
        slope = -_dot(velocity(trial), trial.before.evaluation.gradient, trial)
        raised = torch.clamp(2.0 + loss_change(trial) / slope, 2.0, 10.0)
        raised = torch.where(trial.finite & (raised == raised), raised, 10.0)
        factor = torch.where(ratio > 0.75, 0.5, torch.where(ratio >= 0.25, 1.0, raised))
        return trial.finite & (ratio > 0), factor, ()


@dataclass(frozen=True)
class Nielsen:
    """Takes what lowers the loss; μ follows the ratio ρ of gained to predicted decrease smoothly.

    μ·max(⅓, 1 − (2ρ − 1)³) where ρ > 0; else μ·ν, with ν = 2 that doubles at every rejection in a
    row.

    Reference:
        Nielsen 1999, report IMM-REP-1999-05, Technical University of Denmark, equation 2.6.
    """

    def start(self, point: Point) -> tuple[Tensor, ...]:
        """The factor of the next rejection."""
        return (torch.full_like(point.state.time, 2.0),)

    def judge(self, trial: Trial) -> Answer:
        """By the gain ratio."""
        (raised,) = trial.memory
        ratio = gain_ratio(trial)
        accept = trial.finite & (ratio > 0)
        bend = 2.0 * ratio - 1.0
        lowered = torch.clamp(1.0 - bend * bend * bend, min=1.0 / 3.0)
        memory = (torch.where(accept, 2.0, 2.0 * raised),)
        return accept, torch.where(accept, lowered, raised), memory


@dataclass(frozen=True)
class BoldUphill:
    """Takes steps uphill too, if they go on in the direction of the last one.

    (1 − β)^boldness · L⁺ ≤ the lowest loss so far, with β the cosine between step and last step:
    trajectories follow a narrow valley without clinging to its floor. For losses that are not
    negative.

    Attributes:
        boldness: 1, or 2 for more.
        raised: Factor of μ after a rejection; small, as steps are not to be cut too soon.
        lowered: What μ is divided by after an acceptance.

    Reference:
        Transtrum & Sethna 2012, arXiv:1201.5885, section 4.
    """

    boldness: int = 2
    raised: float = 2.0
    lowered: float = 10.0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        number("raised", self.raised, STRETCH)
        number("lowered", self.lowered, STRETCH)
        if self.boldness not in (1, 2):
            raise ConfigurationError(f"boldness is 1 or 2, got {self.boldness!r}")

    def start(self, point: Point) -> tuple[Tensor, ...]:
        """The lowest loss, and a last step of zero."""
        loss = point.evaluation.loss.to(torch.float64)
        return (loss, *(torch.zeros_like(leaf) for leaf in point.state.position))

    def judge(self, trial: Trial) -> Answer:
        """By loss and direction."""
        lowest, *last = trial.memory
        step, after = velocity(trial), trial.after.evaluation.loss.to(torch.float64)
        sizes = _dot(step, step, trial) * _dot(tuple(last), tuple(last), trial)
        moved = sizes > 0
        cosine = _dot(step, tuple(last), trial) / torch.sqrt(torch.where(moved, sizes, 1.0))
        share = 1.0 - torch.where(moved, cosine, 0.0)
        share = share * share if self.boldness == 2 else share
        accept = trial.finite & (share * after <= lowest)
        memory = [torch.where(accept, torch.minimum(after, lowest), lowest)]
        for new, old in zip(step, last, strict=True):
            mask = accept.reshape(accept.shape + (1,) * (new.ndim - accept.ndim))
            memory.append(torch.where(mask, new, old))
        raised = torch.full_like(trial.step_size, self.raised)
        return accept, torch.where(accept, 1.0 / self.lowered, raised), tuple(memory)


class Damping(Control):
    """Steps of Levenberg and Marquardt under a damping rule, h = 1/μ.

    For `LinearlyImplicitEuler`, of whose steps the rules know what the loss ought to lose. With
    minibatches a gain is an estimate.

    Args:
        rule: `HaganMenhaj()`, `Fletcher()`, `Nielsen()`, `BoldUphill()`.
        damping: μ of the first trial, a float or a (*batch,) tensor; Nielsen's is a thousandth of
            the largest diagonal element of `flowopt.problems.gauss_newton(problem, start)`.
        least: Bound of μ, below which time would forget the steps before.

    Raises:
        ConfigurationError: A number is not positive, or the rule is none.
    """

    rejects = True
    weighs_loss = True
    sampling = "step"

    def __init__(
        self, rule: DampingRule, *, damping: float | Tensor = 10.0, least: float | Tensor = 1e-8
    ):
        """See the class."""
        if isinstance(rule, type) or not hasattr(rule, "judge"):
            raise ConfigurationError(f"a damping rule is such as Nielsen(), got {rule!r}")
        self.rule = rule
        self.damping = numbers("damping", damping, POSITIVE)
        self.least = numbers("least", least, POSITIVE)

    def _written(self) -> list[str]:
        value = self.damping
        return [repr(self.rule), f"damping={value.item() if value.ndim == 0 else '…'}"]

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` for other steps than those of Levenberg and Marquardt."""
        super().check(flow, scheme)
        if not (getattr(scheme, "linearly_implicit", False) and flow.symmetric):
            raise CompatibilityError(
                f"{self!r} judges steps of LinearlyImplicitEuler along the gradient flow, not of "
                f"{scheme!r} along flow {flow.name!r}: use LyapunovControl or ErrorControl"
            )

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """First step size for every trajectory, and what the rule remembers.

        Raises:
            CompatibilityError: A setting has neither one number nor one per trajectory.
        """
        device, batch = point.state.time.device, point.state.batch
        first = per_trajectory("damping", 1.0 / self.damping.to(device), batch).clone()
        per_trajectory("least", self.least, batch)
        return first, self.rule.start(point)

    def judge(self, trial: Trial) -> Verdict:
        """As the rule says."""
        accept, factor, memory = self.rule.judge(trial)
        damping = torch.maximum(factor / trial.step_size, self.least.to(factor.device))
        return Verdict(accept, 1.0 / damping, memory)


def velocity(trial: Trial) -> Leaves:
    """The step without acceleration, which schemes report as its error."""
    positions = (trial.before.state.position, trial.after.state.position)
    step = tuple(new - old for old, new in zip(*positions, strict=True))
    if trial.error is None:
        return step
    return tuple(whole - part for whole, part in zip(step, trial.error.position, strict=True))


def loss_change(trial: Trial) -> Tensor:
    """L(after) − L(before), (*batch,), float64."""
    before, after = (
        point.evaluation.loss.to(torch.float64) for point in (trial.before, trial.after)
    )
    return after - before


def gain_ratio(trial: Trial) -> Tensor:
    """Decrease of the loss over that of its model −gᵀd − ½dᵀQd = ½dᵀ(μd − g), (*batch,)."""
    step, gradient = velocity(trial), trial.before.evaluation.gradient
    damping = 1.0 / trial.step_size
    pull = tuple(lift(damping, d) * d - g for d, g in zip(step, gradient, strict=True))
    return -2.0 * loss_change(trial) / _dot(step, pull, trial)


def _dot(one: Leaves, other: Leaves, trial: Trial) -> Tensor:
    return trial.before.state.total(a * b for a, b in zip(one, other, strict=True))
