"""A training loop in which each process has some rows of every minibatch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import flowopt as fo
from tests.distributed.runs import described

ROWS, STEPS = 8, 4
# Rows of the first layer, 5, do not divide evenly; those of the last leave processes without any.
SIZES = (3, 5, 2)


def network() -> nn.Sequential:
    """The same in every process."""
    generator = torch.Generator().manual_seed(0)
    first, second, third = SIZES
    module = nn.Sequential(nn.Linear(first, second), nn.Tanh(), nn.Linear(second, third)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def rows_of(step: int) -> Tensor:
    """This process's rows of the minibatch of a step, all of them where there is one process."""
    generator = torch.Generator().manual_seed(100 + step)
    rows = torch.randn(ROWS, SIZES[0], generator=generator, dtype=torch.float64)
    return rows.chunk(dist.get_world_size())[dist.get_rank()] if dist.is_initialized() else rows


def alone(module: nn.Module) -> nn.Module:
    """The module of one process."""
    return module


def replicated(module: nn.Module) -> nn.Module:
    """DDP: every process has all parameters."""
    return DistributedDataParallel(module)


def sharded(module: nn.Module) -> nn.Module:
    """FSDP2: every process has some rows of each parameter."""
    for layer in (module[0], module[2]):
        fully_shard(layer)
    return fully_shard(module)


def groups(module: nn.Module, **first: Any) -> list[dict]:
    """The first layer, and the others."""
    parameters = list(module.parameters())
    return [{"params": parameters[:2], **first}, {"params": parameters[2:]}]


def blocks(module: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Two equations under a word that needs a closure."""
    thermostat = fo.flows.adaptive_langevin(temperature=0.1, driving_noise=0.1)
    first = {"flow": thermostat, "letters": {"O": "CDEDC"}}
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    return fo.optim.FlowOptimizer(
        groups(module, **first), flow, fo.Splitting("BAOAB"), lr=0.1, **options
    )


def controlled(module: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Adaptive Runge–Kutta steps."""
    flow, scheme = fo.flows.heavy_ball(friction=1.0), fo.RungeKutta("heun")
    control = fo.control.ErrorControl(rtol=1e-2, atol=1e-3, first_step=0.5)
    return fo.optim.FlowOptimizer(module.parameters(), flow, scheme, control=control, **options)


def preset(name: str, **settings: Any) -> Callable:
    """A preset for all parameters."""
    return lambda module, **options: getattr(fo.optim, name)(
        module.parameters(), **settings, **options
    )


# Without a closure.
FREE: Mapping[str, Callable] = {
    "Adam": preset("Adam", lr=0.1),
    "Langevin": preset("Langevin", lr=0.1, temperature=0.1),
    "AdaptiveLangevin": preset("AdaptiveLangevin", lr=0.1, temperature=0.1, driving_noise=0.1),
    "AdLaLa": lambda module, **options: fo.optim.AdLaLa(groups(module), lr=0.1, **options),
}
# With one; most of them compare losses.
CLOSED: Mapping[str, Callable] = {
    "EnergyMomentum": preset("EnergyMomentum", lr=3.0),
    "EnergyAdam": preset("EnergyAdam", lr=1.0),
    "error": controlled,
    "blocks": blocks,
}


def trained(name: str, wrap: Callable, options: Mapping, passed: str = "closure") -> dict[str, Any]:
    """A run.

    Args:
        name: Of a method.
        wrap: How parameters are divided.
        options: Of the optimizer.
        passed: Under which name a step takes the loss, where it does.
    """
    module, optimizer = made(name, wrap, options)
    loop(name, wrap, module, optimizer, range(STEPS), passed)
    return described(optimizer)


def made(name: str, wrap: Callable, options: Mapping) -> tuple[nn.Module, Any]:
    """Module and optimizer, each process with its own default seed."""
    torch.manual_seed(7 + (dist.get_rank() if dist.is_initialized() else 0))
    module = wrap(network())
    return module, {**FREE, **CLOSED}[name](module, **options)


def loop(
    name: str,
    wrap: Callable,
    module: nn.Module,
    optimizer: Any,
    steps: Iterable[int],
    passed: str = "closure",
) -> None:
    """Some steps."""
    for step in steps:
        rows = rows_of(step)

        def loss(rows=rows):
            return (module(rows) ** 4).mean()

        def closure(loss=loss):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return mean(value) if wrap is replicated else value

        if name in FREE:
            closure()
            optimizer.step()
        else:
            optimizer.step(**{passed: {"closure": closure, "loss": loss}[passed]})


def measured(name: str, wrap: Callable) -> list[dict[str, float]]:
    """Energies and temperatures after a few steps."""
    module, optimizer = made(name, wrap, {})
    loop(name, wrap, module, optimizer, range(3))
    optimizer.zero_grad()
    loss = (module(rows_of(3)) ** 4).mean()
    loss.backward()
    return fo.optim.measures(optimizer, mean(loss) if wrap is replicated else loss)


def resumed(
    name: str, wrap: Callable, options: Mapping, steps: range, source: str | None, target: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run from one checkpoint to the next.

    Args:
        name: Of a method.
        wrap: How parameters are divided.
        options: Of the optimizer.
        steps: Their numbers.
        source: Folder of the checkpoint to load; None to begin.
        target: Folder of the checkpoint to save.

    Returns:
        What was loaded, and what was reached.
    """
    module, optimizer = made(name, wrap, options)
    single = {"no_dist": not dist.is_initialized()}
    if source is not None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        state = dict(zip(("model", "optim"), get_state_dict(module, optimizer), strict=True))
        dcp.load(state, checkpoint_id=source, **single)
        model, optim = state["model"], state["optim"]
        set_state_dict(module, optimizer, model_state_dict=model, optim_state_dict=optim)
    loaded = described(optimizer)
    loop(name, wrap, module, optimizer, steps)
    state = dict(zip(("model", "optim"), get_state_dict(module, optimizer), strict=True))
    dcp.save(state, checkpoint_id=target, **single)
    return loaded, described(optimizer)


def mean(loss: Tensor) -> Tensor:
    """The loss of the whole minibatch, as DDP has its gradient."""
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
