"""One training run: a method, a seed, and what is seen on the way."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt.errors import ConfigurationError
from studies.common.candidates import Candidate
from studies.common.data import Dataset
from studies.common.tasks import initial_network
from studies.compare.config import Plan

CURVES = {
    "training_loss": "cross-entropy over all training rows, nats",
    "test_loss": "cross-entropy over all test rows, nats",
    "test_accuracy": "share of test rows",
    "energy": "first energy that the flow declares, with the loss over all training rows",
}


def steps_within_budget(candidate: Candidate, plan: Plan, dataset: Dataset) -> int:
    """How many steps the budget pays, whose unit is a forward pass of one minibatch.

    Raises:
        ConfigurationError: Not one, or the flow never asks for a gradient.
    """
    if candidate.cost_per_step == 0:
        raise ConfigurationError(
            f"{candidate.label} has no gradient g in its equations, so it can not train: "
            "add a term such as 'B: dtheta/dt = -g'"
        )
    gradient = fo.forward_passes({"gradients": 1})
    budget = gradient * plan.epochs * (len(dataset.train_inputs) // plan.batch)
    # 3 × 0.7 × 10 is a little less than 21.
    steps = math.floor(budget / candidate.cost_per_step + 1e-9)
    if steps < 1:
        raise ConfigurationError(
            f"{plan.epochs:g} epochs in minibatches of {plan.batch} rows pay for no step of "
            f"{candidate.label}: give more epochs or smaller minibatches"
        )
    return steps


@dataclass
class Observer:
    """Looks at a run after every step; what that takes is measured, to be left out.

    Attributes:
        problem: The network with its training rows.
        dataset: Gives the test rows.
        energy: (state, evaluation) → energy, or None if the flow declares none.
        numbers: Numbers of the steps after which loss and accuracy are taken.
        seed: Of the minibatches.
        rows: One per such step: its number, and the values of `CURVES`.
        seconds: Spent on looking.
    """

    problem: fo.problems.Network
    dataset: Dataset
    energy: Callable[..., Tensor] | None
    numbers: frozenset[int]
    seed: int
    rows: list[tuple[float, ...]] = field(default_factory=list)
    seconds: float = 0.0
    _before: fo.State | None = None

    def __call__(self, state: fo.State, evaluation) -> Tensor:
        """Whether the energy rose in this step on its minibatch: 1, 0, or NaN if unknown."""
        begin = time.perf_counter()
        number = int(state.step)
        if number in self.numbers:
            self.rows.append((number, *self._curves(state, evaluation)))
        rose = torch.full_like(state.time, torch.nan)
        if self._before is not None:
            # The evaluation at hand may be of the next minibatch.
            rows = self.problem.draw(number - 1, self.seed, ())
            after = self._energy(state, evaluation, self._loss(state, rows))
            before = self._energy(self._before, evaluation, self._loss(self._before, rows))
            known = torch.isfinite(before) & torch.isfinite(after)
            rose = torch.where(known, (after > before).to(rose.dtype), torch.nan)
        self._before = state
        self.seconds += time.perf_counter() - begin
        return rose

    def _curves(self, state: fo.State, evaluation) -> tuple[float, ...]:
        loss = self._loss(state, None)
        scores, labels = self._scores(state, self.dataset.test_inputs), self.dataset.test_labels
        correct = (scores.argmax(-1) == labels).double().mean()
        energy = self._energy(state, evaluation, loss)
        return float(loss), float(cross_entropy(scores, labels)), float(correct), float(energy)

    def _scores(self, state: fo.State, inputs: Tensor) -> Tensor:
        return self.problem.outputs(self.problem.join(state.position), inputs)

    def _loss(self, state: fo.State, rows: Tensor | None) -> Tensor:
        """Over some training rows, or over all."""
        inputs, labels = self.dataset.train_inputs, self.dataset.train_labels
        if rows is not None:
            inputs, labels = inputs[rows], labels[rows]
        return cross_entropy(self._scores(state, inputs), labels)

    def _energy(self, state: fo.State, evaluation, loss: Tensor) -> Tensor:
        if self.energy is None:
            return torch.full_like(state.time, torch.nan)
        return self.energy(state, dataclasses.replace(evaluation, loss=loss))


def train(
    candidate: Candidate,
    plan: Plan,
    dataset: Dataset,
    seed: int,
    progress: Callable[[int], None],
) -> xr.Dataset:
    """Train one network.

    Args:
        candidate: With what.
        plan: For how long, in which minibatches.
        dataset: On the device where the training happens.
        seed: Of initial weights, minibatches and noise.
        progress: Told of new steps.

    Returns:
        `CURVES` along the dimension "point", with "step" and "cost" of each; and of the whole run
        "status", "steps", "gradients", "energy_increases" (a share), "seconds" and
        "seconds_observing".

    Raises:
        KeyboardInterrupt: From the keyboard.
        ConfigurationError: The budget pays for no step.
    """
    steps = steps_within_budget(candidate, plan, dataset)
    problem = fo.problems.network(
        initial_network(dataset, plan.hidden, seed),
        cross_entropy,
        (dataset.train_inputs, dataset.train_labels),
        batch=fo.problems.Minibatches(plan.batch),
    )
    numbers = np.unique(np.linspace(0, steps, plan.points + 1).round().astype(int))
    observer = Observer(
        problem, dataset, energy_function(candidate), frozenset(numbers.tolist()), seed
    )
    begin = time.perf_counter()
    solution = fo.integrate(
        candidate.flow,
        candidate.scheme,
        problem,
        problem.start(),
        step_size=candidate.step_size,
        steps=steps,
        record={"energy_rose": (1, observer)},
        seed=seed,
        progress=progress,
    )
    status = fo.Status(int(solution.status))
    seconds = time.perf_counter() - begin
    if status == fo.Status.INTERRUPTED:
        raise KeyboardInterrupt
    rows = np.full((plan.points + 1, 1 + len(CURVES)), np.nan)
    rows[: len(observer.rows)] = observer.rows
    return xr.Dataset(
        {
            **{name: ("point", rows[:, i]) for i, name in enumerate(CURVES, start=1)},
            "step": ("point", rows[:, 0]),
            "cost": ("point", rows[:, 0] * candidate.cost_per_step),
            "status": int(status),
            "steps": int(solution.steps),
            "gradients": int(solution.counts["gradients"]),
            "energy_increases": float(solution.records["energy_rose"].nanmean()),
            "seconds": seconds - observer.seconds,
            "seconds_observing": observer.seconds,
        }
    )


def energy_function(candidate: Candidate) -> Callable[..., Tensor] | None:
    """The first energy that the flow declares, in physical time.

    None if there is none, or if it depends on the gradient, which is not taken where we look.
    """
    flow = candidate.flow
    if not flow.energies or flow.equations.energies[flow.energies[0]].has(fo.symbols.g):
        return None
    if flow.per_step:
        flow = flow.at_step_size(candidate.step_size)
    return flow.energy(flow.energies[0]).value
