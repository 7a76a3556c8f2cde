"""Any flow and scheme as a `torch.optim.Optimizer`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import SEEDS, check_flow_and_scheme, check_seed
from flowopt.classic.checks import check_not_negative
from flowopt.controls import Constant
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Scheme
from flowopt.core.noise import PhiloxNoise
from flowopt.core.state import State
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.flows import EquationFlow
from flowopt.optim.gradients import GradientOracle
from flowopt.schemes import Splitting
from flowopt.stepper import Carry, Stepper

# Kept between steps by schemes that end with a gradient.
CARRIED = "end_gradient"
END_LOSS = "end_loss"
# What else stands in param_groups, beside the hyperparameters and scalars of a flow.
GROUP_KEYS = frozenset(
    {"params", "param_names", "lr", "initial_lr", "maximize", "seed", "step", "time", END_LOSS}
)


class FlowOptimizer(torch.optim.Optimizer):
    """Steps a flow with the gradients of a training loop.

    Every param_groups entry may override `lr` and the flow's hyperparameters; all are read at every
    step. Equal to `integrate` on the same gradients. A scheme that ends with a gradient (BAOAB)
    keeps it for the next step, so parameters are not to be changed by hand between its steps.

    Args:
        params: Parameters, named parameters or groups, as for torch.optim.
        flow: The equation.
        scheme: How it becomes a step. With more than the gradient at the start of a step,
            `step(closure)` is needed.
        lr: Step size h, time per step; a float or a 0-d tensor.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`.
        foreach: Only None and False: leaves are stepped one by one.
        compile: Only False: native kernels are not part of this version.

    Raises:
        CompatibilityError: Flow and scheme do not fit.
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        params: Iterable,
        flow: EquationFlow,
        scheme: Scheme,
        lr: float | Tensor = 1e-3,
        *,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        compile: bool = False,
    ):
        """See the class."""
        check_not_negative(lr=lr)
        check_flow_and_scheme(flow, scheme)
        scheme.check(flow)
        _check_names(flow)
        self.flow, self.scheme = flow, scheme
        for name, value in flow.hyperparameters.items():
            _check_one_number(name, value)
        values = {name: value.item() for name, value in flow.hyperparameters.items()}
        self._start(params, {"lr": lr, **values, "maximize": maximize}, seed, foreach, compile)

    def _start(
        self, params: Iterable, defaults: dict, seed: int | None, foreach: object, compile: object
    ) -> None:
        if foreach or compile:
            raise CompatibilityError(
                f"foreach={foreach}, compile={compile}: this version steps leaves one by one in "
                "eager torch; leave both out"
            )
        # In the groups, state dicts carry it: noise continues where it was.
        seed = torch.initial_seed() % SEEDS if seed is None else seed
        super().__init__(params, {**defaults, "seed": seed})

    def __getstate__(self) -> dict[str, Any]:
        """What torch keeps, and what it would drop: flow and scheme."""
        kept = {name: self.__dict__[name] for name in ("flow", "scheme")}
        return {**super().__getstate__(), **kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where a state dict of the same flow was taken, noise included.

        Raises:
            CompatibilityError: The state dict is not one of flowopt's.
        """
        if any("seed" not in group for group in state_dict["param_groups"]):
            raise CompatibilityError(
                "this state dict is not one of flowopt's: its groups have no seed; state dicts of "
                "torch.optim can not be loaded"
            )
        super().load_state_dict(state_dict)

    def add_param_group(self, param_group: dict) -> None:
        """Adds a group; parameters are real and floating.

        Raises:
            CompatibilityError: A parameter is complex, or several groups meet a scheme that
                evaluates gradients within the step.
            ConfigurationError: The seed is no whole number, or a value is more than one number.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            if not parameter.is_floating_point():
                raise CompatibilityError(
                    f"a parameter has dtype {parameter.dtype}: only real floating parameters move"
                )
        check_seed(group["seed"])
        for name, value in group.items():
            if isinstance(value, Tensor):
                _check_one_number(name, value)
        flow, scheme, _ = self._plan(group)
        if len(self.param_groups) > 1 and not scheme.closure_free(flow):
            raise CompatibilityError(
                f"{scheme!r} evaluates gradients within the step, for which all parameters have to "
                "be in one group"
            )

    def _plan(self, group: dict) -> tuple[EquationFlow, Scheme, Tensor]:
        """Flow, scheme and step size of a group, from its values as they are now."""
        check_not_negative(lr=group["lr"])
        changes = {name: group[name] for name in self.flow.hyperparameters}
        flow = self.flow.with_hyperparameters(**changes)
        return flow, self.scheme, torch.as_tensor(group["lr"], dtype=torch.float64)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step.

        Args:
            closure: Clears gradients, runs backward and returns the loss.

        Returns:
            The loss at the start of the step, if there is a closure.

        Raises:
            CompatibilityError: The scheme needs gradients within the step and there is no closure.
        """
        loss = self._end_loss() if closure is not None else None
        if closure is not None and loss is None:
            with torch.enable_grad():
                loss = closure()
        elements = 0
        for group in self.param_groups:
            self._step_group(group, closure, loss, elements)
            elements += sum(parameter.numel() for parameter in group["params"])
        return loss

    def _end_loss(self) -> Tensor | None:
        """The loss with which the last step ended, if its gradient was kept."""
        group = self.param_groups[0]
        moving = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moving or self._carried(moving) is None:
            return None
        return torch.tensor(group[END_LOSS], dtype=torch.float64)

    def _step_group(
        self, group: dict, closure: Callable | None, loss: Tensor | None, first_element: int
    ) -> None:
        parameters, offsets = [], []
        for parameter in group["params"]:
            if parameter.grad is not None:
                if parameter.grad.is_sparse:
                    raise CompatibilityError("sparse gradients are not supported")
                parameters.append(parameter)
                offsets.append(first_element)
            first_element += parameter.numel()
        if not parameters:
            return
        flow, scheme, step_size = self._plan(group)
        if closure is None and not scheme.closure_free(flow):
            raise CompatibilityError(_remedy(flow, scheme))
        if loss is None and flow.uses_loss:
            raise CompatibilityError(
                f"flow {flow.name!r} moves by the value of the loss: call step(closure)"
            )
        sign = -1.0 if group["maximize"] else 1.0
        oracle = GradientOracle(parameters, sign, closure, _remedy(flow, scheme))
        seed = torch.tensor(group["seed"] % 2**63)
        noise = PhiloxNoise(seed, torch.tensor(0), tuple(offsets))
        evaluation = self._carried(parameters) or oracle.read(loss)
        state = self._state_of(group, parameters, flow, evaluation)
        if not scheme.closure_free(flow):
            # Closures are called with trial positions in the parameters; the start stays.
            state = state.with_position(tuple(leaf.clone() for leaf in state.position))
        stepper = Stepper(flow, scheme, oracle, noise, Constant(step_size), observed=False)
        none = torch.tensor(0)
        carry = stepper.advance(Carry(state, evaluation, step_size, (), none, none, none))
        self._keep(group, parameters, carry)

    def _carried(self, parameters: list[Tensor]) -> Evaluation | None:
        """The gradient with which the last step ended, if the scheme kept it."""
        gradients = tuple(self.state[parameter].get(CARRIED) for parameter in parameters)
        if any(gradient is None for gradient in gradients):
            return None
        return Evaluation(torch.tensor(torch.nan, dtype=torch.float64), gradients)

    def _state_of(
        self, group: dict, parameters: list[Tensor], flow: EquationFlow, evaluation: Evaluation
    ) -> State:
        """The state that `_keep` put away; where there is none, the flow's initial state."""
        position = tuple(parameter.detach() for parameter in parameters)
        step = torch.tensor(group.get("step", 0))
        names = [name for name in flow.variables if name != "theta"]
        kept = [self.state[parameter] for parameter in parameters]
        variables = {name: [own.get(name) for own in kept] for name in names}
        scalars = {name: group.get(name) for name in flow.scalars}
        if None in scalars.values() or any(leaf is None for v in variables.values() for leaf in v):
            fresh = flow.initial_state(position, step, lambda _: evaluation)
            for name, leaves in variables.items():
                pairs = zip(leaves, fresh.variables[name], strict=True)
                variables[name] = [new if leaf is None else leaf for leaf, new in pairs]
            for name, value in scalars.items():
                scalars[name] = float(fresh.scalars[name]) if value is None else value
        return State(
            {"theta": position, **{name: tuple(leaves) for name, leaves in variables.items()}},
            {name: torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()},
            torch.tensor(group.get("time", 0.0), dtype=torch.float64),
            step,
        )

    def _keep(self, group: dict, parameters: list[Tensor], carry: Carry) -> None:
        """Writes parameters, variables, and what is live into torch's places."""
        state = carry.state
        for index, parameter in enumerate(parameters):
            parameter.copy_(state.position[index])
            kept = self.state[parameter]
            for name, leaves in state.variables.items():
                if name != "theta":
                    kept[name] = leaves[index]
            if carry.evaluation is not None:
                kept[CARRIED] = carry.evaluation.gradient[index]
        if carry.evaluation is not None:
            sign = -1.0 if group["maximize"] else 1.0
            group[END_LOSS] = sign * float(carry.evaluation.loss)
        group["time"], group["step"] = float(state.time), int(state.step)
        for name, value in state.scalars.items():
            group[name] = float(value)


def _check_names(flow: EquationFlow) -> None:
    """Raises `CompatibilityError` where a name of the flow has another meaning for torch."""
    equations = flow.equations
    in_groups = {*equations.hyperparameters, *(s.name for s in equations.scalars)} & GROUP_KEYS
    of_parameters = {v.name for v in equations.variables} & {CARRIED, "step"}
    if taken := sorted(in_groups | of_parameters):
        raise CompatibilityError(
            f"flow {flow.name!r} uses the names {taken}, which mean something else in an "
            "optimizer's groups and state: rename them in the equations"
        )


def _check_one_number(name: str, value: Tensor) -> None:
    if value.ndim:
        raise ConfigurationError(
            f"{name}: an optimizer steps one network: it needs one number, a float or a 0-d "
            f"tensor, got a tensor of shape {tuple(value.shape)}"
        )


def _remedy(flow: EquationFlow, scheme: Scheme) -> str:
    """What to do where a scheme needs gradients that are not there."""
    message = (
        f"{scheme!r} needs gradients within the step, beyond the one at its start: call "
        "step(closure)"
    )
    if isinstance(scheme, Splitting):
        for length in range(len(scheme.word) - 1, 0, -1):
            shorter = scheme.word[:length]
            covers = set(shorter) == set(flow.letters)
            if covers and Splitting(shorter).closure_free(flow):
                return f"{message}, or use Splitting({shorter!r}), which needs none"
    return message
