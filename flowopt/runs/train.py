"""A network trained in one line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowopt.classic import Method
from flowopt.core.interfaces import FlowLike, Scheme, StepControl
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import ConfigurationError
from flowopt.integrate import integrate
from flowopt.problems import Minibatches, Network, network
from flowopt.problems.network import checked_data
from flowopt.solution import Solution

Metric = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Training:
    """How a training went.

    Attributes:
        module: The module, its parameters those at the end.
        history: "loss", after every step on the minibatch of the next, (step + 1,); and, if there
            is test data, "test_loss" and the metrics, (epoch + 1,), all from before the first step.
        solution: Status, counts and the state from which `integrate` continues, a control anew.
    """

    module: nn.Module
    history: Mapping[str, Tensor]
    solution: Solution

    @property
    def status(self) -> Status:
        """How it ended."""
        return Status(int(self.solution.status))


def train(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Pair,
    method: Method | tuple[FlowLike, Scheme, float],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int | Minibatches | None = None,
    control: StepControl | None = None,
    test: Pair | None = None,
    metrics: Mapping[str, Metric] | None = None,
    seed: int = 0,
    progress: bool | Callable[[int], None] = False,
) -> Training:
    """Trains a network; its parameters are written at the end, and by Ctrl-C too.

        adam = fo.classic.adam(lr=1e-3)
        training = fo.train(module, cross_entropy, (inputs, labels), adam, epochs=10, batch=64)

    Args:
        module: The network.
        loss: (outputs, targets) → 0-d mean loss, such as `torch.nn.functional.cross_entropy`.
        data: Inputs (rows, …) and targets (rows, …), on the module's device.
        method: A published optimizer such as `flowopt.classic.adam(lr=1e-3)`, or (flow, scheme,
            step size).
        epochs: Passes over the data.
        steps: Instead of `epochs`.
        batch: Rows of a minibatch; all rows at every step where not given.
        control: Instead of the method's step size.
        test: Inputs and targets that are looked at before the first step and after every epoch,
            by the module in evaluation mode.
        metrics: Name → (outputs, targets) → number, of the test data.
        seed: Of minibatches and noise.
        progress: As for `integrate`.

    Returns:
        The module, the history and the solution.

    Raises:
        ConfigurationError: Neither or both of epochs and steps, or metrics without test data.
        DataError: The data does not fit.
    """
    batch = Minibatches(batch) if isinstance(batch, int) else batch
    problem = network(module, loss, data, batch=batch)
    flow, scheme, step_size = _taken_apart(method)
    per_epoch = 1 if batch is None else len(problem.inputs) // batch.size
    record: dict[str, object] = {"loss": 1}
    observed = _checked_metrics(loss, test, metrics)
    if test is not None:
        record["test"] = (per_epoch, _Look(problem, checked_data(test), observed))
    solution = integrate(
        flow,
        scheme,
        problem,
        problem.start(),
        step_size=step_size if control is None else None,
        control=control,
        steps=_checked_steps(epochs, steps, per_epoch),
        record=record,
        seed=seed,
        progress=progress,
    )
    module.load_state_dict(solution.position, strict=False)
    looked = solution.records.get("test", torch.empty(0, 0)).unbind(-1)
    history = {"loss": solution.records["loss"], **dict(zip(observed, looked, strict=False))}
    return Training(module, history, solution)


@dataclass(frozen=True)
class _Look:
    """What the metrics say of a state on the test data, (metric,)."""

    problem: Network
    test: Pair
    metrics: Mapping[str, Metric]

    def __call__(self, state: State, evaluation: object) -> Tensor:
        module, (inputs, targets) = self.problem.module, self.test
        training = module.training
        module.eval()
        try:
            outputs = self.problem.outputs(self.problem.join(state.position), inputs)
        finally:
            module.train(training)
        return torch.stack(
            [_number(name, metric(outputs, targets)) for name, metric in self.metrics.items()]
        )


def _number(name: str, value: object) -> Tensor:
    """What a metric gave, 0-d float64."""
    try:
        number = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"metric {name!r} gave {value!r}, expected a number") from error
    if number.ndim:
        raise ConfigurationError(
            f"metric {name!r} gave numbers of shape {tuple(number.shape)}, expected a single one: "
            "take their mean"
        )
    return number


def _taken_apart(method: object) -> tuple[FlowLike, Scheme, float | Tensor]:
    if isinstance(method, Method):
        return method.flow, method.scheme, method.step_size
    if isinstance(method, tuple) and len(method) == 3:
        return method
    raise ConfigurationError(
        f"method={method!r}: give one such as flowopt.classic.adam(lr=1e-3), flowopt.classic."
        "from_torch(optimizer), or (flow, scheme, step size)"
    )


def _checked_steps(epochs: int | None, steps: int | None, per_epoch: int) -> int:
    if (epochs is None) == (steps is None):
        raise ConfigurationError("give either epochs or steps, as in epochs=10")
    value = steps if epochs is None else epochs
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        name = "steps" if epochs is None else "epochs"
        raise ConfigurationError(f"{name} is a whole number that is not negative, got {value!r}")
    return value if epochs is None else value * per_epoch


def _checked_metrics(
    loss: Metric, test: Pair | None, metrics: Mapping[str, Metric] | None
) -> dict[str, Metric]:
    """What is looked at, the test loss first."""
    if test is None:
        if metrics:
            raise ConfigurationError("metrics are of test data: give test=(inputs, targets) too")
        return {}
    if not isinstance(metrics, Mapping | None):
        raise ConfigurationError(
            f"metrics={metrics!r}: give names and functions, as in metrics={{'accuracy': function}}"
        )
    if taken := sorted({"loss", "test_loss"} & set(metrics or {})):
        raise ConfigurationError(f"the history has {taken} already: call the metric something else")
    if odd := [name for name, metric in (metrics or {}).items() if not callable(metric)]:
        raise ConfigurationError(f"metric {odd[0]!r} is no function of (outputs, targets)")
    return {"test_loss": loss, **(metrics or {})}
