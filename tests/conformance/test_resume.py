"""Stopped, written, loaded: a run goes on to the last bit, in every precision."""

import io

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import flowopt as fo

STEPS, STOPS = 12, (1, 5, 11)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


def langevin(module, **options):
    flow = fo.flows.langevin(friction=1.0, temperature=0.01)
    return fo.optim.FlowOptimizer(
        module.parameters(), flow, fo.Splitting("BAOA"), lr=0.1, seed=3, **options
    )


def preset(name, **settings):
    return lambda module, **options: getattr(fo.optim, name)(
        module.parameters(), lr=0.01, **settings, **options
    )


def adlala(module, **options):
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters()}]
    return fo.optim.AdLaLa(groups, seed=5, **options)


KINDS = {
    "SGD": preset("SGD"),
    "SGD momentum": preset("SGD", momentum=0.9),
    "Adam": preset("Adam"),
    "AdamW amsgrad": preset("AdamW", amsgrad=True),
    "RMSprop": preset("RMSprop", centered=True, momentum=0.5),
    "Adagrad": preset("Adagrad", lr_decay=0.1),
    "Langevin": langevin,
    "AdLaLa": adlala,
}
CASES = [
    pytest.param(name, dtype, way, id=f"{name} {str(dtype).removeprefix('torch.')} {way}")
    for name in KINDS
    for dtype in DTYPES
    for way in ("lists", "loop", "compiled")
    if way != "compiled" or dtype != torch.bfloat16
]
WAYS = {"lists": {}, "loop": {"foreach": False}, "compiled": {"compile": True}}


def trained(module, optimizer, first, last, dtype):
    generator = torch.Generator().manual_seed(9)
    rows = [torch.randn(8, 4, generator=generator).to(dtype) for _ in range(STEPS)]
    for step in range(first, last):
        optimizer.zero_grad()
        module(rows[step]).float().square().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def through_file(module, optimizer, again, fresh, folder):
    file = io.BytesIO()
    torch.save((module.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    again.load_state_dict(weights)
    fresh.load_state_dict(state)


def through_checkpoint(module, optimizer, again, fresh, folder):
    weights, state = get_state_dict(module, optimizer)
    dcp.save({"weights": weights, "state": state}, checkpoint_id=folder, no_dist=True)
    weights, state = get_state_dict(again, fresh)
    kept = {"weights": weights, "state": state}
    dcp.load(kept, checkpoint_id=folder, no_dist=True)
    set_state_dict(again, fresh, model_state_dict=kept["weights"], optim_state_dict=kept["state"])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("passage", [through_file, through_checkpoint])
@pytest.mark.parametrize(("name", "dtype", "way"), CASES)
def test_a_run_goes_on_to_the_last_bit(name, dtype, way, passage, tmp_path):
    build, options = KINDS[name], WAYS[way]
    whole = network(dtype)
    expected = trained(whole, build(whole, **options), 0, STEPS, dtype)
    for stop in STOPS:
        module, again = network(dtype), network(dtype)
        optimizer = build(module, **options)
        trained(module, optimizer, 0, stop, dtype)
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.zero_()
        fresh = build(again, **options)
        passage(module, optimizer, again, fresh, tmp_path / str(stop))
        assert torch.equal(trained(again, fresh, stop, STEPS, dtype), expected)
