"""Parameters with drawn gradients, stepped by eager and compiled optimizers."""

import torch
from torch import nn

import flowopt as fo

STEPS = 20
SHAPES = [(7, 5), (), (0, 3), (33,), (41, 50), (1,), (16,)]


def parameters(dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def gradients(moving, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in moving:
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.grad = drawn.to(parameter.dtype)


def run(optimizer, moving, first=0, steps=STEPS, change=None):
    for step in range(first, first + steps):
        gradients(moving, step)
        if change:
            change(optimizer, step)
        if optimizer.flow.uses_loss:
            loss = torch.tensor(2.0 / (step + 1), dtype=torch.float64)
            optimizer.step(lambda loss=loss: loss)
        else:
            optimizer.step()
    return flat(moving)


def flat(moving):
    return torch.cat([p.detach().flatten().double() for p in moving])


def both(build, dtype=torch.float64, change=None):
    """Where eager and compiled steps end."""
    ends = []
    for compiled in (False, True):
        moving = parameters(dtype)
        # Tensor after tensor, eager steps are the twin to the last bit.
        ends.append(run(build(moving, compile=compiled, foreach=False), moving, change=change))
    return ends


def assert_close(eager, compiled, dtype=torch.float64):
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(compiled, eager, rtol=0, atol=tolerance * float(eager.abs().max()))


def langevin(moving, **options):
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    return fo.optim.FlowOptimizer(moving, flow, fo.Splitting("BAOA"), lr=0.1, seed=5, **options)
