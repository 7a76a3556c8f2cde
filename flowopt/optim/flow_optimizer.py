"""Any flow and scheme as a `torch.optim.Optimizer`."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import SEEDS, check_flow_and_scheme
from flowopt.classic.checks import check_not_negative
from flowopt.controls import Constant
from flowopt.core.interfaces import FlowLike, Scheme, StepControl
from flowopt.errors import CompatibilityError, FlowoptError
from flowopt.flows import EquationFlow
from flowopt.optim.blocks.equation import Equation, taken_equation, together
from flowopt.optim.blocks.joint import JointSteps, Member
from flowopt.optim.checks import (
    check_equations,
    check_group,
    check_loaded,
    check_loss,
    check_numbers,
    remedy,
)
from flowopt.optim.checks.finite import check_finite
from flowopt.optim.contract.base import Optimizer
from flowopt.optim.contract.torch_state import NOT_OURS, is_of_torch
from flowopt.optim.controlled import trials
from flowopt.optim.distributed.checkpoint import begin, is_checkpoints, prepare
from flowopt.optim.distributed.parts import share_seed
from flowopt.optim.gradients import all_plain, check_dense, real_view
from flowopt.optim.native import step_native
from flowopt.optim.stepping.cohorts import (
    Moving,
    apart,
    by_clock,
    by_occurrence,
    check_repeated,
    is_repeated,
    take_over,
)
from flowopt.optim.stepping.eager import step_eager
from flowopt.optim.storage import end_loss
from flowopt.optim.tensors import elements_of, moving_of
from flowopt.optim.updates import NativeSteps, Plan, Plans, Prepared

DEFAULT_LR = 1e-3

# What torch would drop from copies.
KEPT = ("flow", "scheme", "control", "_equations", "_plain", "_repeated", "_foreach", "_energies")


class FlowOptimizer(Optimizer):
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
    one is accepted; after 60 trials parameters stay exactly where they were. `group["lr"]` is the
    step size of the next step, and may be changed. `counts` says what it took.

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

    control: StepControl | None = None

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

    def _start(self, params: Iterable, defaults: dict, foreach: object, compile: object) -> None:
        if compile and defaults["differentiable"]:
            raise CompatibilityError("autograd does not follow a kernel: leave out compile=True")
        if foreach and defaults["differentiable"]:
            raise CompatibilityError("autograd does not follow foreach: leave out foreach=True")
        check_numbers(defaults)
        self._foreach = foreach is not False and not defaults["differentiable"]
        self._native = NativeSteps() if compile else None
        self._plain, self._repeated, self._plans = True, set[int](), Plans()
        self._equations: list[Equation] = []
        self._joint: JointSteps | None = None
        self._energies: dict[int, str] = {}
        own = torch.initial_seed() % SEEDS if defaults["seed"] is None else None
        # In the groups, state dicts carry it: noise continues where it was.
        super().__init__(params, defaults if own is None else {**defaults, "seed": own})
        if own is not None and any(known.flow.noisy for known in self._equations):
            share_seed(own, (self.defaults, *self.param_groups))

    def __getstate__(self) -> dict[str, Any]:
        """What torch keeps, and what it would drop: equations, and whether they are compiled."""
        kept = {name: getattr(self, name) for name in KEPT}
        native = None if self._native is None else NativeSteps()
        joint = None if self._joint is None else JointSteps()
        made_again = {"_native": native, "_joint": joint, "_plans": Plans()}
        return {**super().__getstate__(), **kept, **made_again}

    def state_dict(self) -> dict[str, Any]:
        """State and groups, as torch's."""
        apart(self.state.values())
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a state dict of the same flow was taken, noise included.

        Raises:
            CompatibilityError: The state dict is not one of this rule; nothing has changed.
        """
        if is_of_torch(state_dict):
            state_dict = self._translated(state_dict)
        before = self.state, self.param_groups
        super().load_state_dict(state_dict)
        try:
            self._complete()
        except FlowoptError:
            self.state, self.param_groups = before
            raise

    def _complete(self) -> None:
        """Makes what was loaded this optimizer's own."""
        for place, (group, equation) in enumerate(
            zip(self.param_groups, self._equations, strict=True)
        ):
            check_loaded(group, self._settings(place), self.defaults)
            # Older state dicts lack what came later.
            group.update({n: v for n, v in self.defaults.items() if n not in group})
            equation.strip(group, self.flow)
            places = [self.state[p] for p in group["params"] if p in self.state]
            if self._has_clocks(place):
                take_over(group, places, self._plan(place)[0].scalars)
        # torch takes over tensors that need no cast, and kernels step them in place.
        for kept in filter(lambda own: isinstance(own, dict), self.state.values()):
            kept.update({n: v.clone() for n, v in kept.items() if isinstance(v, Tensor)})

    def _translated(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        raise CompatibilityError(NOT_OURS)

    def add_param_group(self, param_group: dict) -> None:
        """Adds a group; a complex parameter is stepped as the real one of its two parts.

        Raises:
            CompatibilityError: The group's flow or parameters do not fit.
            ConfigurationError: The seed is no whole number, or a value is more than one number.
            PartitionError: Letters of the group's flow have no meaning, or several.
        """
        param_group, equation = taken_equation(param_group, self.flow, self.scheme)
        super().add_param_group(param_group)
        group, place = self.param_groups[-1], len(self._equations)
        self._equations.append(equation)
        equation.strip(group, self.flow)
        check_group(group, equation.flow.noisy)
        self._plain = self._plain and all_plain(group["params"])
        flow, scheme = self._whole(place)
        if is_repeated(group["params"]):
            check_repeated(equation.flow, scheme.closure_free(flow) and self.control is None)
            self._repeated.add(place)
        if not scheme.closure_free(flow):
            options = {
                "compile": self._native is not None,
                "differentiable": group["differentiable"],
            }
            for option in (name for name, chosen in options.items() if chosen):
                raise CompatibilityError(f"{option}=True: {remedy(self.flow, self.scheme)}")
            self._joint = JointSteps() if place else None
        if place and self.control is not None:
            trials.check_one_group(self.control, scheme.closure_free(flow))

    @property
    def counts(self) -> dict[str, int]:
        """What a control that rejects took: "gradients", "losses" (without gradient), "rejected".

        `flowopt.forward_passes` weighs them.
        """
        return {
            name: sum(group.get(name, 0) for group in self.param_groups) for name in trials.COUNTS
        }

    def _whole(self, place: int) -> tuple[FlowLike, Scheme]:
        """Flow and scheme of all groups where some have their own, else of the group."""
        if any(known.own for known in self._equations):
            return together(self._equations), self.scheme
        return self._plan(place)[:2]

    def _plan(self, place: int) -> tuple[EquationFlow, Scheme, Tensor]:
        """Flow, scheme and step size of a group, from its values as they are now."""
        group, equation = self.param_groups[place], self._equations[place]
        check_not_negative(lr=group["lr"])
        changes = {name: group[name] for name in equation.flow.hyperparameters}
        flow = equation.flow.with_hyperparameters(**changes)
        step_size = torch.as_tensor(group["lr"], dtype=torch.float64).reshape(())
        return flow, equation.scheme, step_size

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
        check_finite(self.param_groups, self.state, self._plan, loss, self._energies)
        if self._joint is not None:
            self._joint.step(self._members(closure, loss), self.scheme, closure, loss)
            return loss
        first = 0
        for place, group in enumerate(self.param_groups):
            if place:
                first += elements_of(self.param_groups[place - 1]["params"])
            self._step_group(place, group, closure, loss, first)
        return loss

    def _prepare(self) -> None:
        """Makes what torch's distributed checkpoint is loaded over."""
        for place, group in enumerate(self.param_groups):
            flow, (whole, scheme) = self._plan(place)[0], self._whole(place)
            ends = scheme.ends_with_gradient(whole)
            clocks, later = self._has_clocks(place), scheme.regular_start
            prepare(group, self.state, flow, self.control, later, ends, clocks)

    def _members(self, closure: Callable | None, loss: Tensor | None) -> list[Member]:
        """The groups of a joint step: those with a gradient."""
        members, first = [], 0
        for place, group in enumerate(self.param_groups):
            found = moving_of(group["params"], first, self._plain)
            first += elements_of(group["params"])
            if found is None:
                continue
            if closure is None:
                raise CompatibilityError(remedy(self.flow, self.scheme))
            parameters, gradients, elements = found
            check_dense(gradients)
            flow, _, step_size = self._plan(place)
            check_loss(flow, loss is None and flow.uses_loss)
            places, equation = self._places(parameters), self._equations[place]
            members.append(Member(equation, flow, step_size, group, places, parameters, elements))
        return members

    def _step_group(
        self, place: int, group: dict, closure: Callable | None, loss: Tensor | None, first: int
    ) -> None:
        """Steps the parameters that have a gradient; the first of all elements has a number."""
        found = moving_of(group["params"], first, self._plain)
        if found is None:
            return
        prepared = self._prepared(place)
        keeps = prepared.names or prepared.clocks or self.control or not prepared.closure_free
        places = self._places(found[0], keeps=bool(keeps))
        whole = Moving(group, group, places, *found)
        rounds = by_occurrence(whole) if place in self._repeated else (whole,)
        number, clocks = 0, prepared.clocks and self.control is None
        for mentioned in rounds:
            for moving in by_clock(mentioned, prepared.scalars) if clocks else (mentioned,):
                self._step_moving(place, number, prepared, moving, closure, loss)
                number += 1

    def _step_moving(
        self,
        place: int,
        number: int,
        prepared: Prepared,
        moving: Moving,
        closure: Callable | None,
        loss: Tensor | None,
    ) -> None:
        """Steps what has the same time, by eager torch or by a kernel."""
        if self._native is None:
            again, lists = partial(self._prepared, place), self._foreach
            step_eager(moving, prepared, again, closure, loss, self.control, lists)
            return
        later = self.scheme.regular_start
        if self.control is not None:
            (flow, _, _), (group, _, places, parameters) = self._plan(place), moving[:4]
            end = trials.begun(group, places, parameters, flow, loss, later)
            trials.choose_step_size(self.control, group, places, parameters, end, flow)
            prepared = self._prepared(place)
        check_loss(prepared.plan.flow, loss is None and prepared.uses_loss)
        step_native(self._native, (place, number), prepared, moving, loss, later, self._real)

    def _has_clocks(self, place: int) -> bool:
        """Whether each parameter of a group has a time and scalars of its own."""
        return self.control is None and self._prepared(place).clocks

    def _settings(self, place: int) -> Iterable[str]:
        """What a plan is made of, by its names in a group."""
        return ("lr", *self._equations[place].flow.hyperparameters)

    def _prepared(self, place: int) -> Prepared:
        """The plan of a group, made again when its values change."""
        group = self.param_groups[place]
        values = tuple([group[name] for name in self._settings(place)])

        def plan() -> Plan:
            flow, scheme, step_size = self._plan(place)
            return Plan(flow, scheme, step_size, Constant(step_size), bool(group["maximize"]))

        return self._plans.prepared(place, (*values, group["maximize"]), plan)

    def _places(self, parameters: Sequence[Tensor], keeps: bool = True) -> list[dict[str, Any]]:
        """Where torch keeps what belongs to parameters, if anything does."""
        return [*map(self.state.__getitem__, parameters)] if keeps else [{}] * len(parameters)

    def _real(self, tensors: list[Tensor]) -> list[Tensor]:
        """What a kernel steps of tensors."""
        return tensors if self._plain else [real_view(tensor).detach() for tensor in tensors]
