"""Ensembles of small networks, by kernels and by eager torch."""

import torch
from torch import nn

import flowopt as fo
from tests.kernels.machinery import assert_equal

REPLICAS, ROWS = 11, 7
MODULES = {
    "tanh": lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)),
    "sigmoid": lambda: nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1), nn.Sigmoid()),
    "one number": lambda: nn.Linear(2, 1, bias=False),
    "normalised": lambda: nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 1)),
}


def rows_of_data(rows=ROWS, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(rows, 2, generator=generator, dtype=dtype)
    return inputs, (inputs[:, :1] * inputs[:, 1:]).sigmoid()


def small_network(name="tanh", loss=nn.functional.mse_loss, data=None, dtype=torch.float64):
    torch.manual_seed(1)
    return fo.problems.network(MODULES[name]().to(dtype), loss, data or rows_of_data(dtype=dtype))


def starts(problem, replicas=REPLICAS):
    generator = torch.Generator().manual_seed(3)
    start = problem.start(replicas)
    return {
        name: w + 0.3 * torch.randn(w.shape, generator=generator, dtype=w.dtype)
        for name, w in start.items()
    }


def both(problem, flow, scheme, start=None, **settings):
    start = start or starts(problem)
    runs = [
        fo.integrate(flow, scheme, problem, start, compile=native, **settings)
        for native in (True, False)
    ]
    assert runs[0].engine == "native kernel"
    return runs


def assert_same(ours, theirs, tolerance=1e-12):
    for name, theirs_now in theirs.position.items():
        largest = float(theirs_now.abs().max())
        torch.testing.assert_close(
            ours.position[name], theirs_now, rtol=0, atol=tolerance * largest
        )
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=tolerance, atol=tolerance)
    assert_equal(ours.status, theirs.status)
    assert_equal(ours.steps, theirs.steps)
    assert_equal(ours.counts["gradients"], theirs.counts["gradients"])


DESCENT = fo.flows.gradient_flow()
METHODS = {
    "gradient descent": (DESCENT, fo.Euler()),
    "momentum": (fo.flows.heavy_ball(friction=1.0), fo.Splitting("BAOAB")),
    "Langevin": (fo.flows.langevin(friction=1.0, temperature=0.1), fo.Splitting("BAOAB")),
    "four gradients a step": (DESCENT, fo.RungeKutta("rk4")),
}
