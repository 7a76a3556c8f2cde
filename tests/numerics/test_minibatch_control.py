"""Energy control with minibatches: before and after are compared on one sample."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt import LyapunovControl
from flowopt.problems import Minibatches, network
from tests.reference.training import flat_position, small_data, small_network, small_problem

DESCENT = fo.flows.gradient_flow()
SETTINGS = {"dissipation": 0.5, "shrink": 0.5, "growth": 3.0}
SEED = 3


def run(problem, start=None, steps=25, **more):
    control = LyapunovControl(first_step=2.0, **SETTINGS)
    start = problem.start() if start is None else start
    return fo.integrate(
        DESCENT, fo.Euler(), problem, start, control=control, steps=steps, seed=SEED, **more
    )


def plain(problem, steps):
    """The same loop in plain Python: every trial of a step on the minibatch of that step."""
    theta, h, trials = tuple(problem.start().values()), 2.0, 0
    for step in range(steps):
        rows = problem.draw(step, SEED, ())
        loss, gradient = (lambda e: (e.loss, e.gradient))(problem.evaluate(theta, rows))
        square = sum(float((g * g).sum()) for g in gradient)
        while True:
            trials += 1
            after = tuple(p - h * g for p, g in zip(theta, gradient, strict=True))
            change = float(problem.losses(after, rows).detach()) - float(loss)
            if change <= -SETTINGS["dissipation"] * h * square:
                break
            h *= SETTINGS["shrink"]
        theta, h = after, h * SETTINGS["growth"]
    return torch.cat([leaf.flatten() for leaf in theta]), trials


def test_all_trials_of_a_step_are_judged_on_its_minibatch():
    problem = small_problem()
    ours = run(problem)
    expected, trials = plain(problem, 25)
    torch.testing.assert_close(flat_position(ours.position), expected, rtol=1e-11, atol=1e-12)
    assert ours.counts["rejected"].item() == trials - 25 > 5


def test_a_step_costs_one_gradient_and_every_trial_one_loss():
    ours = run(small_problem())
    assert ours.counts["gradients"].item() == 26
    assert ours.counts["losses"].item() == 25 + ours.counts["rejected"].item()


def test_a_condition_on_the_gradient_has_it_at_the_end_of_each_step():
    ours = run(small_problem(), stop=fo.stop.gradient(1e-9))
    torch.testing.assert_close(
        flat_position(ours.position), flat_position(run(small_problem()).position), rtol=0, atol=0
    )
    # What the rejected ends would have cost without the condition.
    assert ours.counts["losses"] == ours.counts["rejected"]


@pytest.mark.parametrize("shared", [True, False])
def test_replicas_that_reject_at_different_times_see_the_minibatches_of_their_own_steps(shared):
    problem = network(
        small_network(), cross_entropy, small_data(), batch=Minibatches(10, shared=shared)
    )
    scales = torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)
    start = {
        name: torch.stack([scale * value for scale in scales])
        for name, value in problem.start().items()
    }
    together = run(problem, start)
    assert len(set(together.counts["rejected"].tolist())) > 1
    if not shared:
        return
    for place in range(len(scales)):
        alone = run(problem, {name: value[place] for name, value in start.items()})
        assert alone.counts["rejected"] == together.counts["rejected"][place]
        torch.testing.assert_close(
            flat_position(alone.position),
            flat_position({name: value[place] for name, value in together.position.items()}),
            rtol=1e-10,
            atol=1e-11,
        )


def test_a_run_that_goes_on_sees_the_minibatches_that_it_would_have_seen():
    problem = small_problem()
    control = LyapunovControl(first_step=1e-2, growth=1.0, dissipation=0.0)
    settings = {"control": control, "seed": SEED}
    whole = fo.integrate(DESCENT, fo.Euler(), problem, problem.start(), steps=20, **settings)
    half = fo.integrate(DESCENT, fo.Euler(), problem, problem.start(), steps=9, **settings)
    rest = fo.integrate(DESCENT, fo.Euler(), problem, half.state, steps=11, **settings)
    torch.testing.assert_close(
        flat_position(rest.position), flat_position(whole.position), rtol=0, atol=0
    )
