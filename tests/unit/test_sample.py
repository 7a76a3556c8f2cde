"""Sampling: which positions are kept, and what they say."""

import pytest
import torch

import flowopt as fo

LANGEVIN = fo.flows.langevin(friction=1.0, temperature=0.5)
QUADRATIC = fo.problems.quadratic([1.0, 4.0])
BAOAB = fo.Splitting("BAOAB")
START = torch.ones(20, 2, dtype=torch.float64)


def sample(flow=LANGEVIN, start=START, **settings):
    settings = {"step_size": 0.4, "samples": 10, **settings}
    return fo.sample(flow, BAOAB, QUADRATIC, start, **settings)


def test_samples_are_the_positions_of_one_run_after_burn_in_every_so_many_steps():
    found = sample(burn_in=7, thinning=3)
    run = fo.integrate(
        LANGEVIN, BAOAB, QUADRATIC, START, step_size=0.4, steps=37, record={"position": 1}
    )
    assert torch.equal(found.position, run.records["position"][10::3])
    assert torch.equal(found.solution.position, run.position)


def test_variances_are_the_temperature_over_the_curvature():
    found = sample(samples=1000, burn_in=20)
    expected = torch.tensor([0.5, 0.125], dtype=torch.float64)
    squares = found.chains**2
    error = squares.std((0, 1)) / fo.diagnostics.effective_sample_size(squares).sqrt()
    assert ((squares.mean((0, 1)) - expected).abs() < 5 * error).all()
    assert (found.chains.mean((0, 1)).abs() < 5 * found.standard_error).all()
    assert (found.r_hat < 1.01).all()
    assert (found.effective_size > 500).all()


def test_sampling_continues_from_a_state():
    whole, first = sample(), sample(samples=4)
    rest = sample(start=first.solution.state, samples=6)
    assert torch.equal(torch.cat([first.position, rest.position]), whole.position)


def test_a_single_chain_is_enough():
    found = sample(start=START[0], samples=8)
    assert found.position.shape == (8, 2)
    assert found.effective_size.shape == found.r_hat.shape == (2,)


def test_an_interrupted_burn_in_is_not_followed_by_samples():
    def progress(steps):
        progress.done += steps
        if progress.done == 5:
            raise KeyboardInterrupt

    progress.done = 0
    found = sample(burn_in=20, progress=progress)
    assert progress.done == 5
    assert found.position.shape == (0, 20, 2)
    assert (found.solution.status == fo.Status.INTERRUPTED).all()
    assert (found.solution.state.step == 5).all()


def test_networks_are_sampled_too():
    module = torch.nn.Linear(2, 1)
    problem = fo.problems.network(
        module, torch.nn.functional.mse_loss, (torch.ones(4, 2), torch.ones(4, 1))
    )
    found = fo.sample(
        LANGEVIN, fo.Splitting("BAOA"), problem, problem.start(3), step_size=0.1, samples=5
    )
    assert found.position.shape == (5, 3, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples is a whole number from 1, got 0"),
        ({"burn_in": -1}, "burn_in is a whole number from 0"),
        ({"thinning": 0.5}, "thinning is a whole number from 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        sample(**settings)


def test_a_flow_without_noise_samples_nothing():
    with pytest.raises(fo.CompatibilityError, match="samples nothing"):
        sample(fo.flows.heavy_ball())
