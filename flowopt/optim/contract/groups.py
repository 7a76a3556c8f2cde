"""Groups of an optimizer: their equations, values and states."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import SEEDS
from flowopt.classic.checks import check_not_negative
from flowopt.controls import Constant
from flowopt.core.interfaces import FlowLike, Scheme, StepControl
from flowopt.errors import CompatibilityError, FlowoptError
from flowopt.flows import EquationFlow
from flowopt.optim.blocks.equation import (
    Equation,
    check_letters,
    missing_letters,
    taken_equation,
    together,
)
from flowopt.optim.blocks.joint import JointSteps
from flowopt.optim.checks import (
    check_compile,
    check_group,
    check_loaded,
    check_numbers,
    remedy,
)
from flowopt.optim.contract.base import Optimizer
from flowopt.optim.contract.torch_state import NOT_OURS, is_of_torch
from flowopt.optim.controlled import trials
from flowopt.optim.distributed.parts import share_seed
from flowopt.optim.gradients import all_plain
from flowopt.optim.stepping.again import Again
from flowopt.optim.stepping.cohorts import (
    REPEATED,
    apart,
    check_repeated,
    is_repeated,
    to_clocks,
    to_group,
)
from flowopt.optim.updates import NativeSteps, Plan, Plans, Prepared

# What torch would drop from copies.
KEPT = ("flow", "scheme", "control", "_equations", "_plain", "_repeated", "_foreach", "_energies")


class GroupOptimizer(Optimizer):
    """An optimizer whose groups have equations; how they are stepped is not said here.

    Attributes:
        flow: The equation of groups that have none of their own.
        scheme: How equations become a step.
        control: How far to step, instead of lr.
    """

    flow: EquationFlow
    scheme: Scheme
    control: StepControl | None = None

    def _start(self, params: Iterable, defaults: dict, foreach: object, compile: object) -> None:
        if compile and defaults["differentiable"]:
            raise CompatibilityError("autograd does not follow a kernel: leave out compile=True")
        if foreach and defaults["differentiable"]:
            raise CompatibilityError("autograd does not follow foreach: leave out foreach=True")
        check_numbers(defaults)
        check_compile(compile)
        self._foreach = foreach is not False and not defaults["differentiable"]
        self._native = NativeSteps() if compile else None
        self._plain, self._repeated, self._plans = True, set[int](), Plans()
        self._equations: list[Equation] = []
        self._joint: JointSteps | None = None
        self._energies: dict[int, str] = {}
        self._again = Again()
        own = torch.initial_seed() % SEEDS if defaults["seed"] is None else None
        # In the groups, state dicts carry it: noise continues where it was.
        super().__init__(params, defaults if own is None else {**defaults, "seed": own})
        check_letters(self._equations, self.scheme)
        if own is not None and any(known.flow.noisy for known in self._equations):
            share_seed(own, (self.defaults, *self.param_groups))

    def __getstate__(self) -> dict[str, Any]:
        """What torch keeps, and what it would drop: equations, and whether they are compiled."""
        kept = {name: getattr(self, name) for name in KEPT}
        native = None if self._native is None else NativeSteps()
        joint = None if self._joint is None else JointSteps()
        made_again = {"_native": native, "_joint": joint, "_plans": Plans(), "_again": Again()}
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
            keep = to_clocks if self._has_clocks(place) else to_group
            keep(group, places, self._plan(place)[0].scalars)
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
        place = len(self._equations)
        self._equations.append(equation)
        try:
            self._check_group(place)
        except FlowoptError:
            del self.param_groups[place], self._equations[place]
            raise

    def _check_group(self, place: int) -> None:
        """Checks a new group, by itself and with those before."""
        group, equation = self.param_groups[place], self._equations[place]
        equation.strip(group, self.flow)
        check_group(group, equation.flow)
        self._plain = self._plain and all_plain(group["params"])
        if is_repeated(group["params"]):
            check_repeated(equation.flow)
            self._repeated.add(place)
        if missing_letters(self._equations, self.scheme):
            # Groups that follow may know them.
            return
        flow, scheme = self._whole(place)
        if not scheme.closure_free(flow):
            options = {
                "compile": self._native is not None,
                "differentiable": group["differentiable"],
            }
            for option in (name for name, chosen in options.items() if chosen):
                raise CompatibilityError(f"{option}=True: {remedy(self.flow, self.scheme)}")
            self._joint = JointSteps() if place else None
        if self._repeated and (self.control is not None or not scheme.closure_free(flow)):
            raise CompatibilityError(REPEATED)
        if place and self.control is not None:
            trials.check_one_group(self.control, scheme.closure_free(flow))

    def _follow_groups(self) -> None:
        """Takes over groups that were added to `param_groups`, or taken from it, by hand."""
        if len(self._equations) == len(self.param_groups):
            return
        if any(known.own for known in self._equations):
            raise CompatibilityError(
                f"param_groups has {len(self.param_groups)} groups, the optimizer has equations of "
                f"{len(self._equations)}, some of them a group's own: use add_param_group, or a "
                "new optimizer for fewer groups"
            )
        self._equations = [Equation(self.flow, self.scheme, {}, False) for _ in self.param_groups]

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

    def _has_clocks(self, place: int) -> bool:
        """Whether each parameter of a group has a time and scalars of its own."""
        return self.control is None and self._prepared(place).clocks
