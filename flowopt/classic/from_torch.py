"""The method that a torch optimizer is."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from flowopt.classic.adaptive_rules import adadelta, adamax, nadam, radam
from flowopt.classic.method import Method
from flowopt.classic.rules import adagrad, adam, adamw, rmsprop, sgd
from flowopt.errors import CompatibilityError

RULES: Mapping[type[torch.optim.Optimizer], Callable[..., Method]] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
    torch.optim.NAdam: nadam,
    torch.optim.RAdam: radam,
    torch.optim.Adamax: adamax,
    torch.optim.Adadelta: adadelta,
}
# What a group holds that does not say where a step leads, only what is stepped and how.
NOT_SETTINGS = frozenset({"params", "param_names", "initial_lr", "foreach", "fused"})
# The rule already says so.
IMPLIED = frozenset({"decoupled_weight_decay"})
ONLY_FALSE = {
    "maximize": "negate the loss",
    "capturable": "leave it out; it is for CUDA graphs",
    "differentiable": "leave it out, and use flowopt.adapters.to_torchdiffeq for derivatives",
}


def from_torch(optimizer: torch.optim.Optimizer, *, group: int | None = None) -> Method:
    """The method whose settings a torch optimizer has at this moment.

    Its flow and scheme step as the optimizer does from its first step on: what the optimizer has
    averaged so far is not taken over, nor is a schedule of its learning rate.

    Args:
        optimizer: SGD, Adam, AdamW, RMSprop, Adagrad, NAdam, RAdam, Adamax or Adadelta of
            torch.optim.
        group: Which of its groups; None where all of them have the same settings.

    Raises:
        CompatibilityError: The class, an option or a difference between groups has no place in one
            method; the message says what does.
    """
    build = RULES.get(type(optimizer))
    if build is None:
        raise CompatibilityError(
            f"no equation is known for {type(optimizer).__module__}.{type(optimizer).__name__}: "
            f"known are {[kind.__name__ for kind in RULES]} of torch.optim"
        )
    groups = [_settings(entry) for entry in optimizer.param_groups]
    if group is None:
        _check_alike(groups, type(optimizer).__name__)
    elif isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < len(groups):
        raise CompatibilityError(
            f"group={group!r}: the optimizer has groups 0 to {len(groups) - 1}"
        )
    settings = groups[group or 0]
    if settings.get("decoupled_weight_decay") and (settings["weight_decay"] or build is adam):
        build = _decoupled(build, type(optimizer).__name__)
    names = inspect.signature(build).parameters
    unknown = sorted(set(settings) - set(names) - set(ONLY_FALSE) - IMPLIED)
    if unknown:
        raise CompatibilityError(
            f"{type(optimizer).__name__} has the options {unknown}, whose meaning is not known: "
            "take them out of its groups"
        )
    for name, remedy in ONLY_FALSE.items():
        if settings.get(name):
            raise CompatibilityError(
                f"{type(optimizer).__name__} has {name}=True, which no method here has: {remedy}"
            )
    return build(**{name: settings[name] for name in names if name in settings})


def _decoupled(build: Callable[..., Method], kind: str) -> Callable[..., Method]:
    """The rule whose weight decay is decoupled."""
    if build not in (adam, adamw):
        raise CompatibilityError(
            f"{kind} has decoupled weight decay, which no method here has: use weight_decay=0 and "
            "one more term, method.flow.plus(Term('W', drift={theta: -decay * theta}), decay=…)"
        )
    return adamw


def _settings(group: dict) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in NOT_SETTINGS}


def _check_alike(groups: list[dict[str, Any]], kind: str) -> None:
    """Raises `CompatibilityError` where groups would need several methods."""
    first = groups[0]
    differ = sorted({n for other in groups for n in first if other.get(n) != first[n]})
    if differ:
        raise CompatibilityError(
            f"the groups differ in {differ}: take them one by one, group=0 to {len(groups) - 1}, "
            f"or use flowopt.optim.{kind}, whose groups may differ as torch's do"
        )
