"""Optimizers equal to torch.optim's, under torch's own argument names."""

import inspect
from collections.abc import Callable, Iterable

from torch import Tensor

from flowopt import classic
from flowopt.classic import Method
from flowopt.core.interfaces import Scheme
from flowopt.flows import EquationFlow
from flowopt.optim.flow_optimizer import FlowOptimizer

OPTIONS = ("maximize", "seed", "foreach", "compile")


class Preset(FlowOptimizer):
    """A `flowopt.classic` method as an optimizer; arguments and defaults are the method's.

    Every value of a group is read at every step, so schedulers may change all of them.
    """

    method: Callable[..., Method]
    settings: tuple[str, ...]

    def __init_subclass__(cls, method: Callable[..., Method]):
        """Takes arguments and defaults over from the method."""
        super().__init_subclass__()
        cls.method = staticmethod(method)
        own = inspect.signature(method).parameters.values()
        cls.settings = tuple(parameter.name for parameter in own)
        options = inspect.signature(FlowOptimizer.__init__).parameters
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        cls.__signature__ = inspect.Signature(
            [
                inspect.Parameter("params", positional, annotation=Iterable),
                *(parameter.replace(kind=positional) for parameter in own),
                *(options[name] for name in OPTIONS),
            ]
        )
        arguments = inspect.getdoc(method).split("\n\n", 1)[1]
        cls.__doc__ = f"{cls.__doc__}\n\n{arguments}"

    def __init__(self, params: Iterable, *args: object, **settings: object):
        """Binds the arguments of the method."""
        bound = self.__signature__.bind(params, *args, **settings)
        bound.apply_defaults()
        defaults = dict(bound.arguments)
        options = {name: defaults.pop(name) for name in OPTIONS}
        params = defaults.pop("params")
        method = self.method(**defaults)
        self.flow, self.scheme = method.rule.flow, method.scheme
        defaults["maximize"] = options["maximize"]
        self._start(params, defaults, options["seed"], options["foreach"], options["compile"])

    def _settings(self) -> tuple[str, ...]:
        return self.settings

    def _plan(self, group: dict) -> tuple[EquationFlow, Scheme, Tensor]:
        method = self.method(**{name: group[name] for name in self.settings})
        step_size, hyperparameters = method.rule.translate(method.settings)
        return method.rule.flow.with_hyperparameters(**hyperparameters), method.scheme, step_size


class SGD(Preset, method=classic.sgd):
    """Stochastic gradient descent, equal to torch.optim.SGD."""


class Adam(Preset, method=classic.adam):
    """Adam, equal to torch.optim.Adam."""


class AdamW(Preset, method=classic.adamw):
    """Adam with decoupled weight decay, equal to torch.optim.AdamW."""


class RMSprop(Preset, method=classic.rmsprop):
    """RMSprop, equal to torch.optim.RMSprop."""


class Adagrad(Preset, method=classic.adagrad):
    """AdaGrad, equal to torch.optim.Adagrad."""
