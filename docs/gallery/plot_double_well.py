"""
Sampling a double well
======================

Langevin dynamics under three words of the same letters, at a step so large that the difference
shows: all three are second order, and not equally good.
"""

import matplotlib.pyplot as plt
import torch

import flowopt as fo

temperature = 0.25
flow = fo.flows.langevin(friction=2.0, temperature=temperature)
problem = fo.problems.double_well()
start = torch.ones(20_000, 1, dtype=torch.float64)

position = torch.linspace(-1.9, 1.9, 400, dtype=torch.float64)
density = torch.exp(-problem.loss(position[:, None]) / temperature)
density = density / torch.trapezoid(density, position)

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.plot(position, density, "k", linewidth=2, label="exact density")
for word, colour in {"BAOAB": "#0072b2", "OBABO": "#e69f00", "ABOBA": "#cc79a7"}.items():
    solution = fo.integrate(
        flow, fo.Splitting(word), problem, start, step_size=0.3, steps=2000, seed=1
    )
    here = solution.position[:, 0]
    axis.hist(
        here.numpy(),
        bins=100,
        range=(-1.9, 1.9),
        density=True,
        histtype="step",
        color=colour,
        label=f"{word}: mean of θ² {here.square().mean():.3f}",
    )
exact = torch.trapezoid(density * position**2, position)
axis.set(xlabel="θ", ylabel="density", title=f"T = {temperature}, h = 0.3; exact mean {exact:.3f}")
axis.legend()
plt.show()
