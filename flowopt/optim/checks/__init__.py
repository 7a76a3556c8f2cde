"""What an optimizer refuses, and with which remedy."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from flowopt.arguments import check_seed, real_tensor
from flowopt.core.interfaces import Scheme
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.flows import EquationFlow, PartitionedFlow
from flowopt.optim.distributed.parts import check_placements
from flowopt.optim.stepping.cohorts import CLOCK
from flowopt.optim.storage import CARRIED, END_LOSS, MEMORY, REMEMBERED, STARTED
from flowopt.schemes import Splitting

# What stands in param_groups, beside the hyperparameters and scalars of a flow.
GROUP_KEYS = frozenset(
    {
        "params",
        "param_names",
        "lr",
        "initial_lr",
        "maximize",
        "differentiable",
        "error_if_nonfinite",
        "seed",
        "step",
        "time",
        END_LOSS,
        MEMORY,
        "gradients",
        "losses",
        "rejected",
        "flow",
        "letters",
    }
)


def check_equations(flow: object) -> None:
    """Raises `CompatibilityError` for a flow not made of equations, or whose names are torch's."""
    if isinstance(flow, PartitionedFlow):
        raise CompatibilityError(
            "an optimizer's blocks are its param_groups: give each group its flow and letters, as "
            "in {'params': …, 'flow': flowopt.flows.langevin(...), 'letters': {'O': 'CDEDC'}}"
        )
    if not isinstance(flow, EquationFlow):
        raise CompatibilityError(
            f"an optimizer steps flows made of equations, got {flow!r}: give one such as "
            "flowopt.flows.langevin(...)"
        )
    _check_names(flow)


def _check_names(flow: EquationFlow) -> None:
    """Raises `CompatibilityError` where a name of the flow has another meaning for torch."""
    equations = flow.equations
    if flow.damping is not None:
        raise CompatibilityError(
            f"flow {flow.name!r} needs residuals, and an optimizer has gradients: use "
            "flowopt.optim.LevenbergMarquardt"
        )
    in_groups = {*equations.hyperparameters, *(s.name for s in equations.scalars)} & GROUP_KEYS
    of_parameters = {v.name for v in equations.variables} & {
        CARRIED,
        CLOCK,
        REMEMBERED,
        STARTED,
        "step",
    }
    if taken := sorted(in_groups | of_parameters):
        raise CompatibilityError(
            f"flow {flow.name!r} uses the names {taken}, which mean something else in an "
            "optimizer's groups and state: rename them in the equations"
        )


def check_loss(flow: EquationFlow, missing: bool) -> None:
    """Raises `CompatibilityError` where a flow moves by the value of a loss that is missing."""
    if missing:
        raise CompatibilityError(
            f"flow {flow.name!r} moves by the value of the loss: call step(closure)"
        )


def check_one_number(name: str, value: Tensor) -> None:
    """Raises `ConfigurationError` for a tensor of several numbers."""
    if value.numel() != 1:
        raise ConfigurationError(
            f"Tensor {name} must be 1-element, since an optimizer steps one network: got a tensor "
            f"of shape {tuple(value.shape)}"
        )


def check_numbers(values: Mapping[str, object]) -> None:
    """Raises `ConfigurationError` where a value is a tensor of several numbers."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            check_one_number(name, value)


def check_compile(compile: object) -> None:
    """Raises `ConfigurationError` for what says neither yes nor no."""
    if not isinstance(compile, bool):
        raise ConfigurationError(f"compile is True or False for an optimizer, got {compile!r}")


def check_group(group: dict[str, Any], flow: EquationFlow) -> None:
    """Checks parameters and values of a new group.

    Raises:
        CompatibilityError: A parameter is divided among processes in a way that can not be stepped.
        ConfigurationError: The seed is no whole number, or a value is no number, or several.
    """
    check_placements(group["params"], flow.noisy, group["differentiable"])
    check_seed(group["seed"])
    check_numbers(group)
    for name in {*flow.scalars} & {*group}:
        real_tensor(name, group[name])


def check_loaded(group: Mapping[str, Any], names: Iterable[str], defaults: Mapping) -> None:
    """Raises `CompatibilityError` where a loaded group is one of another rule.

    Args:
        group: As it was saved.
        names: Of the numbers that its rule needs; flags came later, and may be missing.
        defaults: Values of new groups.
    """
    numbers = (name for name in names if not isinstance(defaults.get(name), bool))
    if missing := sorted(name for name in numbers if name not in group):
        raise CompatibilityError(
            f"a group of this state dict has no {', '.join(missing)}: load it into an optimizer of "
            "the rule that wrote it"
        )


def remedy(flow: EquationFlow, scheme: Scheme) -> str:
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
