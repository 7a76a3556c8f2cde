"""
An equation of your own
=======================

A heavy ball whose friction grows with its speed, written as text: what its energy does is known
before it runs, and then seen.
"""

import matplotlib.pyplot as plt
import torch

import flowopt as fo

flow = fo.Flow.from_text(
    """
    A: dtheta/dt = p
    B: dp/dt = -g
    O: dp/dt = -(friction + drag*total(p**2))*p
    energy mechanical: L + p**2/2
    """,
    name="drag",
    friction=0.05,
    drag=1.0,
)
print(flow.energy_rate("mechanical"))

###################################################################################################
# The same start under the linear and the new friction:

problem = fo.problems.rosenbrock()
start = torch.tensor([-1.5, 1.0], dtype=torch.float64)
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
candidates = {"heavy ball": fo.flows.heavy_ball(friction=0.05), "with drag": flow}
for (name, other), colour in zip(candidates.items(), ["#0072b2", "#e69f00"], strict=True):
    solution = fo.integrate(
        other,
        fo.Splitting("OBA", maps={"O": "euler"}),
        problem,
        start,
        step_size=5e-3,
        duration=40.0,
        record={"mechanical": 10},
    )
    axis.semilogy(solution.times["mechanical"], solution.records["mechanical"], colour, label=name)
axis.set(xlabel="time", ylabel="mechanical energy L + |p|²/2")
axis.legend()
plt.show()
