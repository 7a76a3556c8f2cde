"""The stepping code: the only place where trajectories are advanced."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.curvature.solving import solving
from flowopt.core.evaluation import Evaluation, Evaluator
from flowopt.core.interfaces import (
    FlowLike,
    Noise,
    Oracle,
    Point,
    Proposal,
    Sample,
    Scheme,
    StepControl,
    Trial,
    Verdict,
)
from flowopt.core.state import State, all_finite, select
from flowopt.core.trajectory import Status
from flowopt.stop import Stop

# Times add up with rounding: a step that ends so near to the time span's end, in units of itself,
# is the last one and not the one before a sliver.
END_TOLERANCE = 1e-6

# At rest a control lengthens steps without end: not beyond what their type holds, nor so far that
# times add up to infinity.
LONGEST_STEP = 1e300

STATUS_TYPE = torch.int8


@dataclass(frozen=True)
class Carry:
    """What one trial hands to the next.

    Attributes:
        state: Where the trajectories are.
        evaluation: Loss and gradient there, if known.
        step_size: Of the next trial, (*batch,), float64.
        memory: What the control remembers.
        status: (*batch,), int8, values of `Status`.
        gradients: Evaluations so far, (*batch,), int64.
        rejected: Rejected trials so far, (*batch,), int64.
        products: Products with Jacobians so far, (*batch,), int64; one with the Hessian is three.
        losses: Evaluations of the loss alone so far, (*batch,), int64.
    """

    state: State
    evaluation: Evaluation | None
    step_size: Tensor
    memory: tuple[Tensor, ...]
    status: Tensor
    gradients: Tensor
    rejected: Tensor
    products: Tensor
    losses: Tensor

    @property
    def point(self) -> Point:
        """The state and its evaluation, which an observed run always has."""
        assert self.evaluation is not None
        return Point(self.state, self.evaluation)


pytree.register_pytree_node(
    Carry,
    lambda c: (
        [
            c.state,
            c.evaluation,
            c.step_size,
            c.memory,
            c.status,
            c.gradients,
            c.rejected,
            c.products,
            c.losses,
        ],
        None,
    ),
    lambda children, _: Carry(*children),
    serialized_type_name="flowopt.Carry",
)


class Made(NamedTuple):
    """Evaluations of a trial.

    Attributes:
        within: Gradients that the scheme needed for its step.
        end: Gradients besides, at the end of the step.
        products: Products with Jacobians; one with the Hessian is three.
        losses: Losses alone; (*batch,) where not all trajectories asked for them.
    """

    within: int
    end: int
    products: int
    losses: int | Tensor


@dataclass(frozen=True)
class Stepper:
    """Joins flow, scheme, control, problem and noise.

    Attributes:
        flow: The equation.
        scheme: How it becomes a step.
        oracle: The problem.
        noise: Source of random numbers.
        control: How far to step, and whether to accept.
        stop: Condition that ends a trajectory.
        end_time: (*batch,), float64: where the last step is shortened to end.
        last_step: (*batch,), int64: step number at which a trajectory ends.
        observed: Whether the end of each step is evaluated and judged; without it nobody asks how
            trajectories fare, as for an optimizer that is handed its gradients.
        sampled: Whether a step is judged on the minibatch that it started on, as its control
            wishes, and the next one starts with an evaluation on another.
    """

    flow: FlowLike
    scheme: Scheme
    oracle: Oracle
    noise: Noise
    control: StepControl
    stop: Stop | None = None
    end_time: Tensor | None = None
    last_step: Tensor | None = None
    observed: bool = True
    sampled: bool = False

    def start(self, state: State, evaluation: Evaluation) -> Carry:
        """The first carry, of a state and its evaluation."""
        step_size, memory = self.control.start(Point(state, evaluation), self.flow)
        none = torch.zeros_like(state.step)
        numbers = (evaluation.loss, *evaluation.gradient)
        numbers += tuple(leaf for leaves in state.variables.values() for leaf in leaves)
        finite = all_finite(numbers, len(state.batch), state.shards)
        status = torch.full_like(none, int(Status.RUNNING), dtype=STATUS_TYPE)
        running = torch.ones_like(finite)
        status = self._ended(status, running, ~finite, state, evaluation)
        return Carry(state, evaluation, step_size, memory, status, none + 1, none, none, none)

    def advance(self, carry: Carry, sample: Sample = None, following: Sample = None) -> Carry:
        """One trial per trajectory.

        Args:
            carry: From the last trial.
            sample: The minibatch of this step.
            following: The minibatch of the next step, with which the end of this one is evaluated
                unless the scheme did so already.
        """
        return self.attempt(carry, sample, following)[0]

    def attempt(self, carry: Carry, sample: Sample, following: Sample) -> tuple[Carry, Proposal]:
        """One trial per trajectory as by `advance`, and what the scheme proposed."""
        before = carry.state
        known = None if carry.evaluation is None else (before.position, carry.evaluation)
        evaluate = Evaluator(solving(self.oracle, self.flow.damping), sample, known)
        step_size, time = self._within_time(before.time, carry.step_size)
        proposal = self.scheme.step(self.flow, before, step_size, evaluate, self.noise)
        within = evaluate.gradients
        after = replace(proposal.state, time=time, step=before.step + 1)
        if not self.observed:
            moved = replace(
                carry,
                state=after,
                evaluation=evaluate.known(after),
                gradients=carry.gradients + evaluate.gradients,
            )
            return moved, proposal
        evaluate.switch(following)
        evaluation = evaluate.loss(after) if self._loss_only else evaluate(after)
        numbers = (evaluation.loss, *evaluation.gradient, *after.position)
        finite = all_finite(numbers, len(after.batch), after.shards)
        trial = Trial(
            self.flow,
            carry.point,
            Point(after, evaluation),
            proposal.error,
            self.scheme.error_order,
            finite if proposal.solved is None else finite & proposal.solved,
            step_size,
            carry.memory,
        )
        made = Made(within, evaluate.gradients - within, evaluate.products, evaluate.losses)
        verdict = self.control.judge(trial)
        if self.stop is not None and proposal.probe is not None:
            trial, verdict = _ended_at(proposal.probe, self.stop, trial, verdict)
        return self._settled(carry, trial, verdict, made), proposal

    @property
    def _loss_only(self) -> bool:
        """Whether nobody looks at the gradient at the end of a step."""
        return self.sampled and self.stop is None and not self.control.uses_gradient(self.flow)

    def renewed(self, carry: Carry, moved: Tensor, sample: Sample) -> Carry:
        """The carry of trajectories that moved, evaluated on the minibatch of their next step.

        Args:
            carry: After a trial.
            moved: (*batch,), bool.
            sample: Of the next step; of the same one where a trajectory did not move.
        """
        view = solving(self.oracle, self.flow.damping)
        fresh = view.evaluate(carry.state.position, sample)
        evaluation = select_evaluation(moved, fresh, carry.point.evaluation)
        return replace(carry, evaluation=evaluation, gradients=carry.gradients + moved)

    def _settled(self, carry: Carry, trial: Trial, verdict: Verdict, made: Made) -> Carry:
        """The carry after a trial that was judged."""
        after, evaluation = trial.after
        running = carry.status == int(Status.RUNNING)
        diverged, taken = ~trial.finite, running & trial.finite
        step_size, memory = verdict.step_size, verdict.memory
        if verdict.accept is not None:
            # What is not finite is tried again with a smaller step, until that is too small.
            taken, diverged = running & verdict.accept, torch.zeros_like(running)
            # A trial that is tried again starts from the gradient that it started from.
            evaluation = select_evaluation(taken, evaluation, trial.before.evaluation)
            longest = min(LONGEST_STEP, torch.finfo(after.position[0].dtype).max)
            step_size = torch.clamp(step_size, max=longest)
            step_size = torch.where(running, step_size, carry.step_size)
        elif after.batch:
            loss = torch.where(taken, evaluation.loss, trial.before.evaluation.loss)
            evaluation = replace(evaluation, loss=loss)
        # A single trajectory is never advanced after its end, so it needs no mask, which would
        # read and write a network's parameters once more.
        if after.batch or verdict.accept is not None:
            after = select(taken, after, carry.state)
        status = self._ended(carry.status, running, diverged, after, evaluation)
        if verdict.accept is not None:
            # A step size that is no number leads nowhere either.
            stuck = (status == int(Status.RUNNING)) & ~(after.time + step_size > after.time)
            status = torch.where(stuck, int(Status.STEP_TOO_SMALL), status)
            status = torch.where(stuck & step_size.isnan(), int(Status.DIVERGED), status)
        counted = self._counted(carry, made, running, verdict)
        return Carry(after, evaluation, step_size, memory, status, *counted)

    def _counted(
        self, carry: Carry, made: Made, running: Tensor, verdict: Verdict
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients, rejected trials, products and losses after a trial.

        A rejected step is charged for what rejecting it takes: the gradient at its end, the loss or
        nothing. The gradient was made anyway, since not to make it were a branch on data.
        """
        rejected, losses, always = carry.rejected, carry.losses, made.within
        always_judged = verdict.accept is None or self.control.uses_gradient(self.flow)
        always += made.end if always_judged else 0
        # What does not change costs nothing.
        gradients = carry.gradients + running * always if always else carry.gradients
        if verdict.accept is not None:
            taken, failed = running & verdict.accept, running & ~verdict.accept
            rejected = rejected + failed
            if made.end and not always_judged:
                gradients = gradients + taken * made.end
                losses = losses + failed if self.control.weighs_loss else losses
        if isinstance(made.losses, Tensor) or made.losses:
            losses = losses + running * made.losses
        products = carry.products + running * made.products if made.products else carry.products
        return gradients, rejected, products, losses

    def _within_time(self, time: Tensor, step_size: Tensor) -> tuple[Tensor, Tensor]:
        """Step size and time after the step, shortened to end where the time span does."""
        if self.end_time is None:
            return step_size, time + step_size
        remaining = self.end_time - time
        last = step_size * (1 + END_TOLERANCE) >= remaining
        step_size = torch.where(last, remaining, step_size)
        return step_size, torch.where(last, self.end_time, time + step_size)

    def _ended(
        self,
        status: Tensor,
        running: Tensor,
        diverged: Tensor,
        state: State,
        evaluation: Evaluation,
    ) -> Tensor:
        """The status after a step; what ends a trajectory first in this order names its end."""
        ends = [(diverged, Status.DIVERGED)]
        if self.stop is not None:
            ends.append((self.stop.condition(state, evaluation), self.stop.status))
        if self.end_time is not None:
            ends.append((state.time >= self.end_time, Status.TIME_REACHED))
        if self.last_step is not None:
            ends.append((state.step >= self.last_step, Status.STEPS_TAKEN))
        for met, name in ends:
            status = torch.where(running & met, int(name), status)
            running = running & ~met
        return status


def _ended_at(probe: Point, stop: Stop, trial: Trial, verdict: Verdict) -> tuple[Trial, Verdict]:
    """The trial, ended at a point on the way and accepted where the stop condition holds there."""
    met = stop.condition(*probe)
    end, evaluation = trial.after
    state = select(met, replace(probe.state, step=end.step), end)
    after = Point(state, select_evaluation(met, probe.evaluation, evaluation))
    if verdict.accept is not None:
        verdict = replace(verdict, accept=verdict.accept | met)
    return trial._replace(after=after, finite=trial.finite | met), verdict


def select_evaluation(mask: Tensor, chosen: Evaluation, other: Evaluation) -> Evaluation:
    """Per trajectory, one of two evaluations."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    # Where only the loss was asked for, the gradient stays until the next evaluation.
    if not chosen.gradient:
        chosen = replace(chosen, gradient=other.gradient, damped=other.damped)
    return pytree.tree_map(pick, chosen, other)
