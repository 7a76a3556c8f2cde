"""Any flow and scheme as a `torch.optim.Optimizer`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import check_flow_and_scheme
from flowopt.classic.checks import check_not_negative
from flowopt.core.interfaces import Scheme, StepControl
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.optim.blocks.joint import Member
from flowopt.optim.checks import (
    check_equations,
    check_loss,
    check_numbers,
    remedy,
)
from flowopt.optim.checks.finite import check_finite
from flowopt.optim.contract.base import repeats
from flowopt.optim.contract.groups import GroupOptimizer
from flowopt.optim.controlled import trials
from flowopt.optim.distributed.checkpoint import begin, is_checkpoints, prepare
from flowopt.optim.gradients import check_dense, real_view
from flowopt.optim.native import step_native
from flowopt.optim.stepping.again import Done
from flowopt.optim.stepping.cohorts import (
    Moving,
    by_clock,
    by_occurrence,
)
from flowopt.optim.stepping.eager import step_eager
from flowopt.optim.storage import end_loss
from flowopt.optim.tensors import elements_of, moving_of
from flowopt.optim.updates import Prepared

DEFAULT_LR = 1e-3


class FlowOptimizer(GroupOptimizer):
    """Steps a flow with the gradients of a training loop.

    Every param_groups entry may override `lr` and the flow's hyperparameters; all are read at every
    step. It may have a `flow` of its own, and `letters`: what letters of the word mean to it,
    as in {"params": …, "flow": adaptive_langevin(…), "letters": {"O": "CDEDC"}}.

    Equal to `integrate` on the same gradients, to the last bit with foreach=False. Where nothing is
    summed over elements and no closure needed, time and scalars (Adam's bias corrections) belong to
    each parameter: steps for which it has no gradient do not count, as in torch. A scheme that
    ends with a gradient (BAOAB) keeps it for the next step, so parameters are not to be changed by
    hand between its steps.

    A control that rejects nothing needs no closure: `ExpectedSlope` judges a step by the gradient
    with which the next one begins, for which it keeps copies of the parameters. One that rejects
    (`LyapunovControl`, `ErrorControl`) compares losses of one sample, that of the closure, which
    must not draw data: a step tries shorter and shorter steps, with the same random numbers, until
    one is accepted; after 60 trials parameters stay exactly where they were, as where rounding ends
    them, at a minimum of the sample. `group["lr"]` is the step size of the next step, and may be
    changed. `counts` says what it took.

    Args:
        params: Parameters, named parameters or groups, as for torch.optim.
        flow: The equation of groups that have none of their own.
        scheme: How equations become a step. With more than the gradient at the start of a step,
            `step(closure)` is needed.
        lr: Step size h, time per step; a float or a 0-d tensor; 0.001 without a control.
        control: Instead of lr: says how far to step, from its own first step on.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`, the first process's for all.
        foreach: False steps tensors one by one; None and True all at once and in place, by torch's
            operations over lists, where formula and scheme allow it.
        differentiable: Whether autograd follows the steps: parameters are then no leaves of it.
        error_if_nonfinite: Whether a gradient with NaN or infinity raises before anything moves;
            the message names parameter and step and, where a closure gives the loss, the energies
            with which the last step began.
        compile: Whether to step all tensors of a group by one native kernel, in place: on the
            CPU, schemes that need no closure. bfloat16 and float16 are stepped in float32 and
            rounded once, where eager steps round every operation.

    Raises:
        CompatibilityError: Flow and scheme do not fit, or compile=True and they have no kernel;
            where that shows at the first step, `step` raises it before the group moves.
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        params: Iterable,
        flow: EquationFlow,
        scheme: Scheme,
        lr: float | Tensor | None = None,
        *,
        control: StepControl | None = None,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        differentiable: bool = False,
        error_if_nonfinite: bool = False,
        compile: bool = False,
    ):
        """See the class."""
        check_flow_and_scheme(flow, scheme)
        check_equations(flow)
        scheme.check(flow)
        self.flow, self.scheme = flow, scheme
        check_numbers(flow.hyperparameters)
        values = {name: value.item() for name, value in flow.hyperparameters.items()}
        if control is not None:
            trials.check_control(
                control, flow, scheme, lr=lr, compile=compile, differentiable=differentiable
            )
        self.control = control
        lr = DEFAULT_LR if lr is None else lr
        check_not_negative(lr=lr)
        options = {
            "maximize": maximize,
            "seed": seed,
            "differentiable": differentiable,
            "error_if_nonfinite": error_if_nonfinite,
        }
        self._start(params, {"lr": lr, **values, **options}, foreach, compile)

    @property
    def counts(self) -> dict[str, int]:
        """What a control that rejects took: "gradients", "losses" (without gradient), "rejected".

        `flowopt.forward_passes` weighs them.
        """
        return {
            name: sum(group.get(name, 0) for group in self.param_groups) for name in trials.COUNTS
        }

    @repeats
    def step(
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        loss: Callable[[], Tensor] | None = None,
    ) -> Tensor | None:
        """One step.

        Args:
            closure: Clears gradients, runs backward and returns the loss.
            loss: Instead: returns the loss and nothing else. It is differentiated here, and called
                without gradients where a control asks only for the loss.

        Returns:
            The loss at the start of the step, if there is a closure or a loss.

        Raises:
            CompatibilityError: Scheme or control need the loss within the step and there is neither
                closure nor loss, or both came; or the loss changes under an identical call.
            NotFiniteError: A gradient is not finite, and `error_if_nonfinite` was asked for.
        """
        self._follow_groups()
        if closure is None and loss is None and is_checkpoints(self.param_groups, self.state):
            with torch.no_grad(), torch.device("cpu"):
                return self._prepare()
        begin(self.param_groups, self.state)
        with (
            trials.callable_loss(self, self.control, closure, loss) as closure,
            torch.set_grad_enabled(self.defaults["differentiable"]),
        ):
            return self._stepped(closure)

    def _stepped(self, closure: Callable[[], Tensor] | None) -> Tensor | None:
        loss = None if closure is None else end_loss(self.param_groups, self.state)
        if closure is not None and loss is None:
            with torch.enable_grad():
                loss = closure()
        if self._native is not None and self._repeated_step():
            return loss
        check_finite(self.param_groups, self.state, self._plan, loss, self._energies)
        if self._joint is not None:
            self._joint.step(self._members(closure, loss), self.scheme, closure, loss)
            return loss
        done: list[Done | None] = []
        for place, prepared, moving in self._moving():
            done += self._step_group(place, prepared, moving, closure, loss)
        if self._native is not None and self.control is None:
            self._again.remember(self.param_groups, self.state, done, self._settings)
        return loss

    def _repeated_step(self) -> bool:
        return self._again.step(self.param_groups, self.state, self._prepared)

    def _moving(self) -> Iterator[tuple[int, Prepared, Moving]]:
        """The groups that have a gradient: place, how it is stepped, and what moves."""
        first, before = 0, ()
        for place, group in enumerate(self.param_groups):
            first += elements_of(before)
            before = group["params"]
            if (found := moving_of(before, first, self._plain)) is not None:
                prepared = self._prepared(place)
                # A control that rejects keeps all of its own in the group.
                judged = self.control is not None and not self.control.rejects
                keeps = prepared.names or prepared.clocks or judged
                places = self._places(found[0], bool(keeps) or not prepared.closure_free)
                yield place, prepared, Moving(group, group, places, *found)

    def _prepare(self) -> None:
        """Makes what torch's distributed checkpoint is loaded over."""
        for place, group in enumerate(self.param_groups):
            flow, (whole, scheme) = self._plan(place)[0], self._whole(place)
            ends = scheme.ends_with_gradient(whole)
            clocks, later = self._has_clocks(place), scheme.regular_start
            prepare(group, self.state, flow, self.control, later, ends, clocks)

    def _members(self, closure: Callable | None, loss: Tensor | None) -> list[Member]:
        """The groups of a joint step: those with a gradient."""
        members = []
        for place, _, (group, _, _, parameters, gradients, elements) in self._moving():
            if closure is None:
                raise CompatibilityError(remedy(self.flow, self.scheme))
            check_dense(gradients)
            flow, _, step_size = self._plan(place)
            check_loss(flow, loss is None and flow.uses_loss)
            places, equation = self._places(parameters), self._equations[place]
            members.append(Member(equation, flow, step_size, group, places, parameters, elements))
        return members

    def _step_group(
        self,
        place: int,
        prepared: Prepared,
        whole: Moving,
        closure: Callable | None,
        loss: Tensor | None,
    ) -> list[Done | None]:
        """Steps the parameters that have a gradient, those with the same clock together."""
        rounds = by_occurrence(whole) if place in self._repeated else (whole,)
        done, clocks = [], prepared.clocks and self.control is None
        for mentioned in rounds:
            for moving in by_clock(mentioned, prepared.scalars) if clocks else (mentioned,):
                names = place, len(done)
                done.append(self._step_moving(names, prepared, moving, closure, loss))
        return done

    def _step_moving(
        self,
        names: tuple[int, int],
        prepared: Prepared,
        moving: Moving,
        closure: Callable | None,
        loss: Tensor | None,
    ) -> Done | None:
        """Steps what has the same time, by eager torch or by a kernel; what the kernel did."""
        place, _ = names
        if self._native is None:
            again, lists = partial(self._prepared, place), self._foreach
            step_eager(moving, prepared, again, closure, loss, self.control, lists)
            return None
        later = self.scheme.regular_start
        if self.control is not None:
            (flow, _, _), (group, _, places, parameters) = self._plan(place), moving[:4]
            end = trials.begun(group, places, parameters, flow, loss, later)
            trials.choose_step_size(self.control, group, places, parameters, end, flow)
            prepared = self._prepared(place)
        check_loss(prepared.plan.flow, loss is None and prepared.uses_loss)
        return step_native(self._native, names, prepared, moving, loss, later, self._real)

    def _places(self, parameters: Sequence[Tensor], keeps: bool = True) -> list[dict[str, Any]]:
        """Where torch keeps what belongs to parameters, if anything does."""
        return [*map(self.state.__getitem__, parameters)] if keeps else [{}] * len(parameters)

    def _real(self, tensors: list[Tensor]) -> list[Tensor]:
        """What a kernel steps of tensors."""
        return tensors if self._plain else [real_view(tensor).detach() for tensor in tensors]
