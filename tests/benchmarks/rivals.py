"""The other libraries at the same work, as their manuals have it and in their favour.

Torch's libraries get the gradient in closed form, where ours takes the user's loss; those of jax
get parameters as separate arrays. None of them keeps a status or stops a trajectory.
"""

from collections.abc import Callable
from functools import partial

import diffrax
import heyoka
import jax
import numpy as np
import torch
import torchdiffeq
import torchode
from torch import Tensor

jax.config.update("jax_enable_x64", True)

Run = Callable[[], object]


def closed_form(theta: Tensor) -> Tensor:
    """Gradient of the neuron on two points, (*batch, 2)."""
    w, b = theta.unbind(-1)
    s = w + b
    first = s * (s * s - 1.0)
    return torch.stack([first, first + b * (b * b - 1.0)], -1)


def _neuron(theta):
    w, b = theta
    return 0.25 * ((b * b - 1.0) ** 2 + ((w + b) ** 2 - 1.0) ** 2)


def _arrays(start: Tensor) -> tuple:
    return tuple(jax.numpy.asarray(column.numpy().copy()) for column in start.unbind(-1))


def _downhill(time, theta, arguments):
    return jax.tree.map(jax.numpy.negative, jax.grad(_neuron)(theta))


def _diffrax(solver, start: Tensor, end: float, first: float, most: int, **options) -> Run:
    term = diffrax.ODETerm(_downhill)

    def one(theta):
        solution = diffrax.diffeqsolve(
            term,
            solver,
            0.0,
            end,
            first,
            theta,
            saveat=diffrax.SaveAt(t1=True),
            max_steps=most,
            throw=False,
            **options,
        )
        return solution.ys

    compiled, theta = jax.jit(jax.vmap(one)), _arrays(start)
    return lambda: jax.block_until_ready(compiled(theta))


def diffrax_euler(start: Tensor, step_size: float, steps: int) -> Run:
    """Euler by diffrax, vmap over trajectories and jit."""
    return _diffrax(diffrax.Euler(), start, step_size * steps, step_size, steps + 1)


def diffrax_adaptive(start: Tensor, end: float, tolerance: float) -> Run:
    """Dormand–Prince by diffrax, error control per trajectory."""
    control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    return _diffrax(diffrax.Dopri5(), start, end, None, 4096, stepsize_controller=control)


def jax_adam(start: Tensor, lr: float, steps: int) -> Run:
    """Adam in jax: jit of a fori_loop over the whole ensemble."""
    gradient = jax.vmap(jax.grad(_neuron))
    tree = jax.tree.map

    def step(number, carry):
        theta, m, v = carry
        g = gradient(theta)
        m = tree(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = tree(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        time = number + 1.0
        first, second = 1.0 - 0.9**time, 1.0 - 0.999**time

        def moved(x, a, b):
            return x - lr * (a / first) / (jax.numpy.sqrt(b / second) + 1e-8)

        return tree(moved, theta, m, v), m, v

    @jax.jit
    def run(theta):
        zeros = tree(jax.numpy.zeros_like, theta)
        return jax.lax.fori_loop(0, steps, step, (theta, zeros, zeros))

    theta = _arrays(start)
    return lambda: jax.block_until_ready(run(theta))


def torchdiffeq_run(start: Tensor, end: float, method: str, **options) -> Run:
    """torchdiffeq; its adaptive methods have one step size for the whole ensemble."""
    times = torch.tensor([0.0, end], dtype=torch.float64)

    @torch.no_grad()
    def run():
        return torchdiffeq.odeint(
            lambda _, theta: -closed_form(theta), start, times, method=method, **options
        )

    return run


def torchode_adaptive(start: Tensor, end: float, tolerance: float) -> Run:
    """Dormand–Prince by torchode, error control per trajectory."""
    term = torchode.ODETerm(lambda _, theta: -closed_form(theta))
    control = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    count = len(start)
    begin = torch.zeros(count, dtype=torch.float64)
    problem = torchode.InitialValueProblem(y0=start, t_start=begin, t_end=begin + end, t_eval=None)
    return torch.no_grad()(lambda: solver.solve(problem))


def heyoka_adaptive(start: Tensor, end: float, tolerance: float) -> Run:
    """Taylor series of adaptive step by heyoka, in batches of as many as a vector has lanes."""
    w, b = heyoka.make_vars("w", "b")
    s = w + b
    first = s * (s * s - 1.0)
    lanes = heyoka.recommended_simd_size()
    integrator = heyoka.taylor_adaptive_batch(
        [(w, -first), (b, -(first + b * (b * b - 1.0)))],
        np.zeros((2, lanes)),
        tol=tolerance,
    )
    columns = np.ascontiguousarray(start.numpy().T)

    def run():
        ends = np.empty_like(columns)
        for place in range(0, columns.shape[1], lanes):
            integrator.set_time(0.0)
            integrator.state[:] = columns[:, place : place + lanes]
            integrator.propagate_until(end)
            ends[:, place : place + lanes] = integrator.state
        return ends

    return run


def torch_normals(count: int, steps: int) -> Run:
    """Torch's own generator, drawing what a thermostat of two parameters needs."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.empty(count, 2, dtype=torch.float64)

    def run():
        for _ in range(steps):
            numbers.normal_(generator=generator)

    return run


def torch_gradients(loss: Callable, start: Tensor, steps: int, *, compiled: bool) -> Run:
    """The batched gradient alone, as often as there are steps; no update."""
    gradient = torch.func.grad(lambda theta: loss(theta).sum())
    gradient = torch.compile(gradient) if compiled else gradient

    def run():
        for _ in range(steps):
            gradient(start)

    return run


torchdiffeq_euler = partial(torchdiffeq_run, method="euler")
