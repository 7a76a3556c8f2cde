"""Optimizers that live through the same training, each with parameters of its own."""

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

import flowopt as fo

# The same examples on every machine, however slow it is.
DRAWN = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# What lies between the numbers of a parameter that shares its memory with others.
NEIGHBOUR = 7.0
LAYOUTS = ("contiguous", "channels last", "apart")


@dataclass(frozen=True)
class Kind:
    """An optimizer, and torch's of the same rule if there is one.

    Attributes:
        ours: (parameters or groups, options) → our optimizer.
        theirs: The same of torch's.
        sums: Whether a step sums over elements.
        group: Place of a group → what stands in it beside its parameters.
    """

    ours: Callable[..., torch.optim.Optimizer]
    theirs: Callable[..., torch.optim.Optimizer] | None = None
    sums: bool = False
    group: Callable[[int], dict[str, Any]] = lambda place: {}


def preset(name: str, **settings: Any) -> Kind:
    """A preset and its twin."""

    def ours(params, **options):
        return getattr(fo.optim, name)(params, **settings, **options)

    def theirs(params, **options):
        return getattr(torch.optim, name)(params, **settings, **options, foreach=False)

    controlled = "control" in settings
    return Kind(ours, None if controlled else theirs, sums=controlled)


def equation(word: str, make: Callable[..., fo.Flow], sums: bool = False, **settings) -> Kind:
    """A flow as an optimizer."""

    def ours(params, **options):
        own = make(**settings), fo.Splitting(word)
        return fo.optim.FlowOptimizer(params, *own, lr=0.1, seed=5, **options)

    return Kind(ours, sums=sums)


def blocks(place: int) -> dict[str, Any]:
    """Every other group has an equation of its own."""
    flow = fo.flows.heavy_ball(friction=2.0)
    return {"flow": flow, "letters": {"O": "O"}, "lr": 0.05} if place % 2 else {"friction": 0.5}


LANGEVIN = equation("BAOA", fo.flows.langevin, friction=1.0, temperature=0.1)
KINDS = {
    "SGD": preset("SGD", lr=0.1),
    "SGD with decay": preset("SGD", lr=0.1, weight_decay=0.1),
    "SGD with momentum": preset("SGD", lr=0.1, momentum=0.9),
    "SGD of Nesterov": preset("SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD with dampening": preset("SGD", lr=0.1, momentum=0.9, dampening=0.3),
    "SGD that controls itself": preset("SGD", control=fo.ExpectedSlope(first_step=0.05, start=1.0)),
    "Adam": preset("Adam", lr=0.1),
    "Adam with AMSGrad": preset("Adam", lr=0.1, weight_decay=0.1, amsgrad=True),
    "AdamW": preset("AdamW", lr=0.1, betas=(0.8, 0.95)),
    "RMSprop": preset("RMSprop", lr=0.01, weight_decay=0.1),
    "RMSprop, centred": preset("RMSprop", lr=0.01, alpha=0.9, centered=True, momentum=0.5),
    "Adagrad": preset("Adagrad", lr=0.1, weight_decay=0.1, lr_decay=0.1),
    "Langevin": LANGEVIN,
    "thermostat": equation(
        "BAE(CD)EA",
        fo.flows.adaptive_langevin,
        temperature=0.1,
        driving_noise=0.1,
        coupling=0.05,
        sums=True,
    ),
    "Langevin and heavy balls": Kind(LANGEVIN.ours, group=blocks),
}


def laid(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers in other memory, laid out in another order."""
    if layout == "apart":
        return torch.stack([tensor, torch.full_like(tensor, NEIGHBOUR)], -1)[..., 0]
    if layout == "channels last" and tensor.ndim > 1:
        return tensor.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)
    return tensor.clone(memory_format=torch.contiguous_format)


@dataclass
class World:
    """One optimizer and its parameters.

    Attributes:
        kind: Of the optimizer.
        options: How it steps.
        theirs: Whether it is torch's.
        interrupted: Whether it is saved, loaded and copied where the session says so.
        groups: The parameters of each group.
        optimizer: What steps them.
    """

    kind: Kind
    options: dict[str, Any]
    theirs: bool
    interrupted: bool
    groups: list[list[nn.Parameter]]
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self):
        self.optimizer = self.fresh()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those of all groups."""
        return [parameter for group in self.groups for parameter in group]

    def fresh(self) -> torch.optim.Optimizer:
        """A new optimizer of the same kind for the parameters as they are."""
        build = self.kind.theirs if self.theirs else self.kind.ours
        assert build is not None
        return build([self._group(place) for place in range(len(self.groups))], **self.options)

    def _group(self, place: int) -> dict[str, Any]:
        return {"params": self.groups[place], **self.kind.group(place)}

    def add(self, group: Sequence[Tensor]) -> None:
        """One more group."""
        self.groups.append([nn.Parameter(tensor) for tensor in group])
        self.optimizer.add_param_group(self._group(len(self.groups) - 1))

    def replace(self, place: int, tensor: Tensor) -> None:
        """Another parameter in the place of one, which begins anew."""
        for group, own in zip(self.groups, self.optimizer.param_groups, strict=True):
            if place < len(group):
                # State of parameters that are in no group can not be saved, in torch neither.
                self.optimizer.state.pop(group[place], None)
                group[place] = own["params"][place] = nn.Parameter(tensor)
                return
            place -= len(group)

    def step(self) -> None:
        """One step."""
        if isinstance(self.optimizer, torch.optim.Adagrad):
            # torch's own begins only the parameters that it was made with.
            for parameter in self.parameters:
                if not self.optimizer.state[parameter]:
                    start = {"step": torch.tensor(0.0), "sum": torch.zeros_like(parameter)}
                    self.optimizer.state[parameter] = start
        self.optimizer.step()

    def reload(self) -> None:
        """The same from a file."""
        if not self.interrupted:
            return
        file = io.BytesIO()
        torch.save(self.optimizer.state_dict(), file)
        file.seek(0)
        self.optimizer = self.fresh()
        self.optimizer.load_state_dict(torch.load(file, weights_only=True))

    def duplicate(self) -> None:
        """A copy of everything but gradients, while the original goes on somewhere else."""
        self.optimizer.zero_grad()
        if not self.interrupted:
            return
        old = self.groups, self.optimizer
        self.groups, self.optimizer = copy.deepcopy(old)
        for parameter in (p for group in old[0] for p in group):
            parameter.grad = torch.ones_like(parameter)
        old[1].step()
