"""State dicts of torch.optim: what they call what ours keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from flowopt.errors import CompatibilityError
from flowopt.optim.stepping.cohorts import CLOCK

NOT_OURS = (
    "this state dict is not one of flowopt's: its groups have no seed; state dicts of torch.optim "
    "are loaded by the presets of their rule, such as flowopt.optim.Adam"
)

Group = dict[str, Any]
StateDict = dict[str, Any]


@dataclass(frozen=True)
class Twin:
    """A torch optimizer of the same rule.

    Attributes:
        kind: Its class.
        names: Our variable → the name of the same tensor there.
        scalars: Our scalar → its value after so many steps.
    """

    kind: type[torch.optim.Optimizer]
    names: Mapping[str, str]
    scalars: Mapping[str, Callable[[Group, int], float]] = field(default_factory=dict)


def _correction(place: int) -> Callable[[Group, int], float]:
    return lambda group, step: 1.0 - float(group["betas"][place]) ** step


CORRECTIONS = {"u_m": _correction(0), "u_v": _correction(1)}
AVERAGES = {"m": "exp_avg", "v": "exp_avg_sq", "largest": "max_exp_avg_sq"}
ADAM = Twin(torch.optim.Adam, AVERAGES, CORRECTIONS)
ADAMW = Twin(torch.optim.AdamW, AVERAGES, CORRECTIONS)
SGD = Twin(torch.optim.SGD, {"m": "momentum_buffer"})
RMSPROP = Twin(torch.optim.RMSprop, {"v": "square_avg", "c": "grad_avg", "m": "momentum_buffer"})
ADAGRAD = Twin(
    torch.optim.Adagrad,
    {"v": "sum"},
    {"age": lambda group, step: 1.0 + float(group["lr_decay"]) * step},
)


def is_of_torch(state_dict: StateDict) -> bool:
    """Whether a state dict is not one of flowopt's, whose groups carry a seed."""
    return any("seed" not in group for group in state_dict["param_groups"])


def from_torch(twin: Twin, state_dict: StateDict, defaults: Group) -> StateDict:
    """One of our state dicts from one of torch's.

    Args:
        twin: The torch optimizer that wrote it.
        state_dict: What it wrote.
        defaults: Values that our groups have where torch's have none.

    Raises:
        CompatibilityError: It belongs to another rule.
    """
    state = state_dict["state"]
    known = {*twin.names.values(), "step"}
    found = {name for kept in state.values() for name, v in kept.items() if v is not None}
    if not found <= known:
        raise CompatibilityError(
            f"this state dict of torch.optim keeps {sorted(found)}; {twin.kind.__name__} keeps "
            f"{sorted(known)}: load it into the optimizer of its rule"
        )
    ours = {theirs: name for name, theirs in twin.names.items()}
    found = {
        index: {ours[n]: value for n, value in kept.items() if n in ours and value is not None}
        for index, kept in state.items()
    }
    groups = [_our_group(twin, group, defaults) for group in state_dict["param_groups"]]
    for group in groups:
        for index in filter(state.__contains__, group["params"]):
            found[index][CLOCK] = _clock(twin, group, int(state[index].get("step", 0)))
    return {"state": found, "param_groups": groups}


def _clock(twin: Twin, group: Group, step: int) -> dict[str, float]:
    scalars = {name: value(group, step) for name, value in twin.scalars.items()}
    return {**scalars, "time": step * float(group["lr"]), "step": step}


def _our_group(twin: Twin, group: Group, defaults: Group) -> Group:
    if "lr" not in group:
        raise CompatibilityError("a group of this state dict has no lr: is it an optimizer's?")
    decoupled = group.get("decoupled_weight_decay", twin is ADAMW)
    if twin in (ADAM, ADAMW) and decoupled != (twin is ADAMW):
        raise CompatibilityError(
            f"decoupled_weight_decay={decoupled} is not {twin.kind.__name__}'s: load this state "
            f"dict into {'AdamW' if decoupled else 'Adam'}"
        )
    carried = {"params", "param_names", "initial_lr", "max_lr", "min_lr"}
    result = {n: v for n, v in group.items() if n in defaults or n in carried}
    return {**{n: v for n, v in defaults.items() if n not in result}, **result}


def to_torch(twin: Twin, state_dict: StateDict) -> StateDict:
    """A state dict that the torch optimizer of the same rule loads."""
    # Only torch's base class needs defaults to be given.
    options = twin.kind([torch.zeros(0)]).defaults  # pyright: ignore[reportCallIssue]
    groups, steps = [], {}
    for group in state_dict["param_groups"]:
        groups.append({**options, **{n: v for n, v in group.items() if n in options}})
        groups[-1]["params"] = group["params"]
        groups[-1] |= {n: group[n] for n in ("param_names", "initial_lr") if n in group}
        steps |= dict.fromkeys(group["params"], group.get("step", 0))
    counted = twin is not SGD
    state = {}
    for index, kept in state_dict["state"].items():
        own = {twin.names[name]: value for name, value in kept.items() if name in twin.names}
        step = kept.get(CLOCK, {}).get("step", steps[index])
        state[index] = {"step": torch.tensor(float(step)), **own} if counted else own
    return {"state": state, "param_groups": groups}
