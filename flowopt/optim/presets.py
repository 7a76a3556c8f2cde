"""Optimizers equal to torch.optim's, under torch's own argument names."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from flowopt import classic
from flowopt.arguments import check_is_control
from flowopt.classic import Method
from flowopt.core.interfaces import Scheme
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.optim.blocks.equation import FLOW, LETTERS
from flowopt.optim.contract import torch_state
from flowopt.optim.contract.torch_state import Twin, from_torch, to_torch
from flowopt.optim.controlled.trials import check_control
from flowopt.optim.flow_optimizer import FlowOptimizer

OPTIONS = (
    "control",
    "maximize",
    "seed",
    "foreach",
    "differentiable",
    "error_if_nonfinite",
    "compile",
)
# Arguments of torch's that no equation needs, and what to do instead.
ONLY_TORCH = {
    "capturable": "a step reads live numbers on the host, which a CUDA graph would freeze",
    "fused": "the fused step of flowopt is compile=True",
    "decoupled_weight_decay": "that is flowopt.optim.AdamW",
}


class Preset(FlowOptimizer):
    """A `flowopt.classic` method as an optimizer; arguments and defaults are the method's.

    Every value of a group is read at every step, so schedulers may change all of them.
    """

    method: Callable[..., Method]
    twin: Twin
    settings: tuple[str, ...]
    only_torch: tuple[str, ...]

    def __init_subclass__(
        cls, method: Callable[..., Method] | None = None, twin: Twin | None = None
    ):
        """Takes arguments and defaults over from the method; without one, all from its base."""
        super().__init_subclass__()
        if method is None or twin is None:
            return
        cls.method, cls.twin = staticmethod(method), twin
        own = inspect.signature(method).parameters.values()
        cls.settings = tuple(parameter.name for parameter in own)
        theirs = inspect.signature(twin.kind).parameters
        cls.only_torch = tuple(name for name in ONLY_TORCH if name in theirs)
        options = inspect.signature(FlowOptimizer.__init__).parameters
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        cls.__signature__ = inspect.Signature(
            [
                inspect.Parameter("params", positional, annotation=Iterable),
                *(parameter.replace(kind=positional) for parameter in own),
                *(options[name] for name in OPTIONS),
                *(
                    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
                    for name in cls.only_torch
                ),
            ]
        )
        arguments = inspect.cleandoc(method.__doc__ or "").partition("\n\n")[2]
        cls.__doc__ = f"{cls.__doc__}\n\n{arguments}"

    def __init__(self, *args: object, **settings: object):
        """Binds the arguments of the method."""
        try:
            bound = self.__signature__.bind(*args, **settings)
        except TypeError as reason:
            raise TypeError(f"{type(self).__name__}() {reason}") from None
        lr = bound.arguments.get("lr")
        bound.apply_defaults()
        defaults = dict(bound.arguments)
        self._check_only_torch({name: defaults.pop(name) for name in self.only_torch})
        options = {name: defaults.pop(name) for name in OPTIONS}
        params, control, foreach, compiled = (
            defaults.pop("params"),
            options.pop("control"),
            options.pop("foreach"),
            options.pop("compile"),
        )
        method = self.method(**defaults)
        self.flow, self.scheme, self.control = method.rule.flow, method.scheme, control
        if control is not None:
            check_is_control(control, "lr=0.1")
            if control.rejects:
                raise CompatibilityError(
                    f"{control!r} compares energies of one flow, and {method.name} keeps its betas "
                    "while steps change: use flowopt.optim.EnergyAdam and its like"
                )
            follow = options["differentiable"]
            check_control(
                control, self.flow, self.scheme, lr=lr, compile=compiled, differentiable=follow
            )
        self._start(params, {**defaults, **options}, foreach, compiled)

    def _check_only_torch(self, settings: dict[str, Any]) -> None:
        for name in filter(settings.get, self.only_torch):
            raise CompatibilityError(f"{name}=True: {ONLY_TORCH[name]}; leave it out")

    def torch_state_dict(self) -> dict[str, Any]:
        """A state dict that torch's optimizer of the same rule loads."""
        return to_torch(self.twin, self.state_dict())

    def _translated(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        return from_torch(self.twin, state_dict, self.defaults)

    def add_param_group(self, param_group: dict) -> None:
        """Adds a group, which is stepped by the method as all others are.

        Raises:
            CompatibilityError: The group has a flow or letters of its own, or does not fit.
        """
        if own := sorted({FLOW, LETTERS} & {*param_group}):
            raise CompatibilityError(
                f"a group has {own} of its own, and {type(self).__name__} is one method for all "
                "groups: use FlowOptimizer"
            )
        self._check_only_torch(param_group)
        super().add_param_group(param_group)

    def _settings(self, place: int) -> tuple[str, ...]:
        return self.settings

    def _plan(self, place: int) -> tuple[EquationFlow, Scheme, Tensor]:
        group = self.param_groups[place]
        method = self.method(**{name: _number(group[name]) for name in self.settings})
        step_size, hyperparameters = method.rule.translate(method.settings)
        return method.rule.flow.with_hyperparameters(**hyperparameters), method.scheme, step_size


class SGD(Preset, method=classic.sgd, twin=torch_state.SGD):
    """Stochastic gradient descent, equal to torch.optim.SGD."""


class Adam(Preset, method=classic.adam, twin=torch_state.ADAM):
    """Adam, equal to torch.optim.Adam."""


class AdamW(Preset, method=classic.adamw, twin=torch_state.ADAMW):
    """Adam with decoupled weight decay, equal to torch.optim.AdamW."""


class RMSprop(Preset, method=classic.rmsprop, twin=torch_state.RMSPROP):
    """RMSprop, equal to torch.optim.RMSprop."""


class Adagrad(Preset, method=classic.adagrad, twin=torch_state.ADAGRAD):
    """AdaGrad, equal to torch.optim.Adagrad."""


def _number(value: object) -> object:
    """A tensor of one element as a 0-d tensor; others as they are."""
    return value.reshape(()) if isinstance(value, Tensor) and value.ndim else value
