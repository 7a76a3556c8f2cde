"""
Where optimizers end
====================

One neuron on two data has four equal minima, marked by crosses. Each pixel is a start, its colour
the minimum that gradient descent, momentum and Adam reach from there; brown starts diverge. All
starts of a map step together as one native kernel.
"""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap

import flowopt as fo

problem = fo.problems.analytic("poly_two")
axis = torch.linspace(*problem.domain, 300, dtype=torch.float64)
starts = torch.cartesian_prod(axis, axis)

adam = fo.classic.adam(lr=0.1)
# m ← 0.9 m + 0.1 ∇L, θ ← θ − 0.1 m
average = fo.flows.momentum_ema(rate=-math.log(0.9) / 0.1)
methods = {
    "gradient descent, lr = 0.1": (fo.flows.gradient_flow(), fo.Euler()),
    "momentum, lr = 0.1": (average, fo.Splitting("MA")),
    "Adam, lr = 0.1": (adam.flow, adam.scheme),
}
minima = [point for point in problem.critical_points if point.kind == "minimum"]
places = torch.tensor([point.position for point in minima], dtype=torch.float64)

###################################################################################################
# A trajectory that diverges is a result with a status, not an error.

colours = ["#6b3d12", "#bbbbbb", "#0072b2", "#e69f00", "#009e73", "#cc79a7"]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), sharey=True, layout="constrained")
for panel, (name, (flow, scheme)) in zip(axes, methods.items(), strict=True):
    solution = fo.integrate(
        flow, scheme, problem, starts, step_size=0.1, steps=4000, stop=fo.stop.rest(1e-5)
    )
    distance, nearest = torch.cdist(solution.position, places).min(-1)
    label = torch.where(distance < 0.05, nearest + 1, 0)
    label = torch.where(solution.status == fo.Status.DIVERGED, -1, label)
    panel.imshow(
        label.reshape(300, 300).T,
        origin="lower",
        extent=(*problem.domain, *problem.domain),
        cmap=ListedColormap(colours),
        norm=BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5], 6),
        interpolation="nearest",
    )
    panel.plot(*places.T, "k+", markersize=8)
    panel.set(title=name, xlabel="weight w")
    print(name, solution.summary(), solution.engine)
axes[0].set_ylabel("bias b")
plt.show()
