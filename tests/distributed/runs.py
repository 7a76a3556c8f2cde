"""What processes run: the same steps with plain tensors, and with parts of distributed ones."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh

import flowopt as fo
from flowopt.optim.stepping.cohorts import CLOCK
from tests.reference.optimizers import kept_tensors

# Uneven parts, and parts without elements: 5 rows are 2 + 2 + 1 + 0 among four processes.
SHAPES = ((5, 3), (7,), (1, 4), (), (4, 2, 3))
STEPS = 4


def whole(index: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers of a parameter, or of its gradient."""
    generator = torch.Generator().manual_seed(index)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def mesh_of(sizes: tuple[int, ...]):
    """All processes in a row, or in rows and columns."""
    return init_device_mesh("cpu", sizes)


def placed(tensor: Tensor, mesh, placements) -> Tensor:
    """A tensor as it is divided; by rows where it has no columns, numbers of their own not."""
    if mesh is None:
        return tensor
    fitting = [
        Replicate()
        if not tensor.ndim
        else Shard(0)
        if placement.is_shard(tensor.ndim)
        else placement
        for placement in placements
    ]
    return distribute_tensor(tensor, mesh, fitting)


def full(tensor: Tensor) -> Tensor:
    """A tensor as a whole."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def described(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Positions, variables and numbers of an optimizer, all of it whole."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = [
        {name: full(v) for name, v in sorted(kept_tensors(optimizer, p).items())}
        for p in parameters
    ]
    # Without noise a seed is each process's own.
    noisy = any(known.flow.noisy for known in optimizer._equations)
    left = {"params", "param_names"} | (set() if noisy else {"seed"})
    numbers = [
        {name: value for name, value in group.items() if name not in left}
        for group in optimizer.param_groups
    ]
    clocks = [optimizer.state[p].get(CLOCK) for p in parameters]
    position = [full(p) for p in parameters]
    return {"position": position, "state": state, "numbers": numbers, "clocks": clocks}


def preset(name: str, **settings: Any) -> Callable:
    """A preset of all parameters, or of the first two apart from the others."""

    def build(parameters: list[Tensor], **options: Any) -> torch.optim.Optimizer:
        if name in ("LOL", "AdLaLa"):
            parameters = [{"params": parameters[:2]}, {"params": parameters[2:]}]
        return getattr(fo.optim, name)(parameters, **settings, **options)

    return build


def stepping(flow: fo.Flow, word: str, **settings: Any) -> Callable:
    """Any flow under a word."""

    def build(parameters: list[Tensor], **options: Any) -> torch.optim.Optimizer:
        return fo.optim.FlowOptimizer(parameters, flow, fo.Splitting(word), **settings, **options)

    return build


WANDERING_RATE = fo.Flow.from_text("""
    scalar rate
    S: drate/dt = -rate + dW/dt
    A: dtheta/dt = -rate*g
""")
NORMALISED = fo.Flow.from_text("A: dtheta/dt = -g/sqrt(total(g**2))")

# What moves an element is its own: processes give the bits of one.
OWN: Mapping[str, Callable] = {
    "SGD": preset("SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": preset("Adam", lr=0.1, amsgrad=True),
    "AdamW": preset("AdamW", lr=0.1),
    "RMSprop": preset("RMSprop", lr=0.1, centered=True, momentum=0.5),
    "Adagrad": preset("Adagrad", lr=0.1, lr_decay=0.1),
    "Langevin": preset("Langevin", lr=0.1, temperature=0.1),
    "LOL": preset("LOL", lr=0.1, temperature=0.1),
    "wandering rate": stepping(WANDERING_RATE, "SA", lr=0.1),
}
# What sums over elements is equal to rounding.
SUMMING: Mapping[str, Callable] = {
    "AdaptiveLangevin": preset("AdaptiveLangevin", lr=0.1, temperature=0.1),
    "AdLaLa": preset("AdLaLa", lr=0.1, temperature=0.1),
    "normalised": stepping(NORMALISED, "A", lr=0.1),
    "expected slope": stepping(
        fo.flows.heavy_ball(friction=0.5), "BOA", control=fo.control.ExpectedSlope(rule="cos")
    ),
}


def given(
    name: str, options: Mapping, dtype: torch.dtype, sizes: tuple | None, placements: tuple
) -> dict[str, Any]:
    """Steps along gradients that are given, as tensors that are divided so.

    Args:
        name: Of a method.
        options: Of its optimizer.
        dtype: Of the parameters.
        sizes: Of the mesh of processes; None for plain tensors.
        placements: Of all parameters of one dimension or more.
    """
    mesh = None if sizes is None else mesh_of(sizes)
    parameters = [
        nn.Parameter(placed(whole(i, shape, dtype), mesh, placements))
        for i, shape in enumerate(SHAPES)
    ]
    optimizer = {**OWN, **SUMMING}[name](parameters, seed=3, **options)
    for step in range(STEPS):
        for i, (parameter, shape) in enumerate(zip(parameters, SHAPES, strict=True)):
            # The second is frozen at first: numbers of elements do not move up.
            gradient = placed(whole(100 * step + i + 50, shape, dtype), mesh, placements)
            parameter.grad = None if i == 1 and step == 0 else gradient
        optimizer.step()
    return described(optimizer)
