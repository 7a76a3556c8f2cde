"""Published ways to look for a step that dissipates enough, against slow twins; and rest."""

import functools

import pytest
import torch

import flowopt as fo
from tests.reference.lyapunov import cumulative_descent, dichotomy_descent, modelled_descent

POLY_TWO = fo.problems.analytic("poly_two")
STARTS = torch.tensor([[-2.5, 2.0], [0.3, 0.4], [1.5, -2.9], [-1.0, 1.4]], dtype=torch.float64)
DESCENT = fo.flows.gradient_flow()


def descend(control, start=STARTS, **more):
    return fo.integrate(DESCENT, fo.Euler(), POLY_TWO, start, control=control, **more)


@pytest.mark.parametrize(
    ("twin", "settings"),
    [
        (
            functools.partial(dichotomy_descent, shrink=1 / 30, growth=1e4, loops=3),
            {"shrink": 1 / 30, "growth": 1e4, "bisections": 3},
        ),
        (
            functools.partial(modelled_descent, safety=0.9, floor=0.01),
            {"model": 0.9, "growth": 90.0},
        ),
        (
            functools.partial(cumulative_descent, shrink=0.5, growth=2.0),
            {"shrink": 0.5, "growth": 2.0, "cumulative": True},
        ),
    ],
    ids=["LC_EGD2", "LC_EGD3", "LCI_EGD"],
)
def test_a_search_takes_the_steps_of_the_published_loop(twin, settings):
    control = fo.LyapunovControl(dissipation=0.5, first_step=0.1, **settings)
    found = descend(control, steps=12, record={"position": 1}).records["position"]
    for member, start in enumerate(STARTS):
        path = twin(POLY_TWO, start, dissipation=0.5, first=0.1, steps=12)
        torch.testing.assert_close(found[:, member], torch.stack(path), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{"shrink": 1 / 30, "growth": 1e4, "bisections": 3}, {"model": 0.9, "growth": 90.0}],
    ids=["bisections", "model"],
)
def test_every_search_brings_every_start_to_rest_without_an_increase(settings):
    generator = torch.Generator().manual_seed(0)
    start = 6 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 3
    run = descend(
        fo.LyapunovControl(**settings),
        start,
        steps=500,
        stop=fo.stop.gradient(1e-6),
        record={"loss": 1},
    )
    assert (run.status == fo.Status.GRADIENT_SMALL).all()
    change = run.records["loss"].diff(dim=0)
    assert (change[~change.isnan()] <= 0).all()


def test_bisection_ends_within_its_resolution_of_the_longest_step_that_holds():
    # On κθ²/2 that is 2(1 − λ)/κ; n halvings of log h between h and 30h leave a factor 30^(1/2ⁿ).
    problem, longest = fo.problems.quadratic([2.0]), 0.5
    start = torch.tensor([1.0], dtype=torch.float64)
    for loops in (1, 3, 6):
        control = fo.LyapunovControl(first_step=40.0, shrink=1 / 30, bisections=loops)
        run = fo.integrate(DESCENT, fo.Euler(), problem, start, control=control, steps=1)
        assert longest / 30 ** (0.5**loops) <= run.state.time.item() <= longest * (1 + 1e-12)


def test_rejected_trials_cost_a_loss_each_and_accepted_steps_a_gradient():
    class Counted:
        dim, calls = 2, 0

        def loss(self, theta):
            Counted.calls += theta.requires_grad
            return POLY_TWO.loss(theta)

    control = fo.LyapunovControl(growth=100.0)
    run = fo.integrate(DESCENT, fo.Euler(), Counted(), STARTS[0], control=control, steps=10)
    assert run.counts["losses"] == run.counts["rejected"] > 0
    assert run.counts["gradients"] == 11
    assert Counted.calls == run.counts["gradients"] + run.counts["losses"]
    assert run.cost == 3 * 11 + run.counts["rejected"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bisections": -1}, "bisections is a whole number"),
        ({"model": 1.0}, "model lies between 0 and 1"),
        ({"model": 0.9, "bisections": 3}, "give one of them"),
    ],
)
def test_searches_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        fo.LyapunovControl(**settings)


FLYING = {
    "momentum": (fo.flows.momentum_ema(rate=1.0), fo.Splitting("MA", maps={"M": "euler"})),
    "heavy ball": (fo.flows.heavy_ball(friction=0.3), fo.Splitting("OBA")),
    "adam": (fo.flows.adam(momentum_rate=1.0, square_rate=0.01), fo.Splitting("TMVA")),
}


@pytest.mark.parametrize(("method", "least"), [("momentum", 20), ("heavy ball", 30), ("adam", 5)])
def test_where_only_the_gradient_vanishes_some_are_flying_by_and_end_elsewhere(method, least):
    generator = torch.Generator().manual_seed(1)
    start = 6 * torch.rand(4000, 2, generator=generator, dtype=torch.float64) - 3
    points = torch.tensor([p.position for p in POLY_TWO.critical_points], dtype=torch.float64)

    def nearest(solution):
        return (solution.position[:, None] - points).norm(dim=-1).argmin(-1)

    settings = {"step_size": 0.1, "steps": 20_000, "compile": True}
    stopped = fo.integrate(
        *FLYING[method], POLY_TWO, start, stop=fo.stop.gradient(0.01), **settings
    )
    rested = fo.integrate(
        *FLYING[method], POLY_TWO, stopped.state, stop=fo.stop.rest(0.01), **settings
    )
    assert (rested.status == fo.Status.GRADIENT_SMALL).all()
    assert (nearest(stopped) != nearest(rested)).sum() >= least
    assert (rested.steps > 0).double().mean() > 0.8


@pytest.mark.parametrize(
    "settings",
    [{"shrink": 1 / 30, "growth": 1e4, "bisections": 3}, {"model": 0.9}, {"cumulative": True}],
    ids=str,
)
def test_a_search_is_the_same_as_native_code(settings):
    control = fo.LyapunovControl(**settings)
    native, eager = (descend(control, steps=10, compile=engine) for engine in (True, False))
    for name, counts in eager.counts.items():
        assert torch.equal(native.counts[name], counts)
    torch.testing.assert_close(native.position, eager.position, rtol=1e-9, atol=1e-9)
