"""Flows in torchsde, and our schemes on its Brownian paths."""

import math

import pytest
import torch
import torchsde

import flowopt as fo
from tests.reference.states import HILLS

START = torch.full((200, 1), 0.5, dtype=torch.float64)
WELL = fo.problems.double_well()
LANGEVIN = fo.flows.langevin(friction=1.0, temperature=0.5)
BROWNIAN = "A: dtheta/dt = 0.3 + a*dW/dt"
GEOMETRIC = "A: dtheta/dt = -theta + a*theta*dW/dt"
# Preconditioned noise: driven is theta, the amplitude depends on v.
SCALED = "V: dv/dt = g**2 - v\nstart v = 1 + theta**2\nA: dtheta/dt = -g + a*v*dW/dt"
# One Wiener process for two variables.
SHARED = "A: dtheta/dt = p + a*dW1/dt\nA: dp/dt = 2*a*dW1/dt\nB: dp/dt = -g"
SCALAR = "A: dtheta/dt = -g\nS: ds/dt = -s + a*dW/dt\nscalar s"


def system_of(text, problem=WELL, **settings):
    flow = fo.Flow.from_text(text, a=0.7) if isinstance(text, str) else text
    return fo.adapters.to_torchsde(flow, problem, **settings)


def torchsde_end(system, path, steps, method, start=START):
    times = torch.tensor([path.begin, path.end], dtype=torch.float64)
    packed = system.pack(start)
    with torch.no_grad():
        states = torchsde.sdeint(
            system, packed, times, bm=path, dt=(path.end - path.begin) / steps, method=method
        )
    return system.position(states[-1])


def our_end(system, path, steps, scheme, start=START):
    step_size = (path.end - path.begin) / steps
    return fo.integrate(
        system.flow,
        scheme,
        system.problem,
        start,
        step_size=step_size,
        steps=steps,
        noise=system.noise(path),
    )


@pytest.mark.parametrize(
    ("flow", "kind"),
    [
        (LANGEVIN, "diagonal"),
        (BROWNIAN, "diagonal"),
        (GEOMETRIC, "diagonal"),
        (SCALAR, "diagonal"),
        (SHARED, "additive"),
        (SCALED, "general"),
    ],
)
def test_the_noise_has_the_strongest_type_that_holds(flow, kind):
    system = system_of(flow)
    packed = system.pack(START)
    assert system.noise_type == kind
    diffusion = system.g(torch.tensor(0.0), packed)
    assert diffusion.shape == packed.shape + (() if kind == "diagonal" else (1,))


def test_the_diffusion_has_every_amplitude_in_its_place():
    start = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
    moment, one = torch.tensor(0.0), torch.eye(2, dtype=torch.float64)
    langevin = system_of(LANGEVIN, HILLS)
    amplitudes = langevin.unpack(langevin.g(moment, langevin.pack(start)), 0.0)
    assert torch.equal(torch.stack(amplitudes.variables["theta"], -1), torch.zeros_like(start))
    torch.testing.assert_close(torch.stack(amplitudes.variables["p"], -1), torch.ones_like(start))
    shared = system_of(SHARED, HILLS)
    expected = torch.cat([0.7 * one, 1.4 * one])
    assert torch.equal(shared.g(moment, shared.pack(start)), expected.expand(2, 4, 2))
    scaled = system_of(SCALED, HILLS)
    own = torch.diag_embed(0.7 * (1 + start**2))
    expected = torch.cat([own, torch.zeros_like(own)], 1)
    torch.testing.assert_close(scaled.g(moment, scaled.pack(start)), expected)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_on_one_path_brownian_motion_is_the_same_for_everyone(steps):
    system = system_of(BROWNIAN)
    path = system.path(system.pack(START), 0.5, 2.0, seed=1)
    exact = START + 0.3 * 1.5 + 0.7 * path(0.5, 2.0)
    begin = fo.integrate(system.flow, fo.Splitting("A"), WELL, START, step_size=0.5, steps=0).state
    begin = fo.State(begin.variables, begin.scalars, begin.time + 0.5, begin.step)
    ours = our_end(system, path, steps, fo.Splitting("A"), begin)
    torch.testing.assert_close(ours.position, exact, rtol=0, atol=1e-13)
    theirs = torchsde_end(system, path, steps, "euler")
    torch.testing.assert_close(theirs, exact, rtol=0, atol=1e-13)


def test_parts_of_a_letter_share_out_its_increment():
    # A path that is known at halves of steps tells what the two half letters must have drawn.
    flow = fo.Flow.from_text("A: dtheta/dt = p\nO: dp/dt = a*dW/dt\nB: dp/dt = -g", a=0.7)
    system = fo.adapters.to_torchsde(flow, fo.problems.quadratic([1e-300]))
    path = system.path(system.pack(START), 0.0, 1.0)
    solution = our_end(system, path, 2, fo.Splitting("OABO"))
    kicks = [path(first / 4, (first + 1) / 4)[:, 1:] for first in range(4)]
    first, second = 0.7 * kicks[0], 0.7 * (kicks[0] + kicks[1] + kicks[2])
    torch.testing.assert_close(solution.position, START + (first + second) / 2, rtol=1e-13, atol=0)


@pytest.mark.parametrize("method", ["srk", "milstein"])
def test_geometric_brownian_motion_is_followed_in_the_sense_of_ito(method):
    system = system_of(GEOMETRIC)
    path = system.path(system.pack(START), 0.0, 1.0, seed=2)
    exact = START * torch.exp(-1.0 - 0.7**2 / 2 + 0.7 * path(0.0, 1.0))
    error = (torchsde_end(system, path, 64, method) - exact).square().mean().sqrt()
    # Stratonovich's reading would differ by the factor exp(0.7²/2), 28 %.
    assert error < 0.005


@pytest.mark.parametrize(
    ("name", "order"),
    [("BAOAB", 1.0), ("OBA", 1.0), ("euler", 1.0), ("srk", 1.8), ("heun", 1.0)],
)
def test_on_one_path_everyone_converges_to_the_same_end(name, order):
    system = system_of(LANGEVIN, sde_type="stratonovich" if name == "heun" else "ito")
    path = system.path(system.pack(START), 0.0, 1.0, seed=3)
    fine = our_end(system, path, 1024, fo.Splitting("BAOAB")).position
    ends = [
        our_end(system, path, steps, fo.Splitting(name)).position
        if name.isupper()
        else torchsde_end(system, path, steps, name)
        for steps in (8, 32)
    ]
    coarse, finer = [(end - fine).square().mean().sqrt().item() for end in ends]
    # The rest is chance of 200 paths, and the error of the fine run.
    assert abs(math.log2(coarse / finer) / 2 - order) < 0.25


def test_a_step_shortened_at_the_end_takes_the_rest_of_the_path():
    system = system_of(BROWNIAN)
    path = system.path(system.pack(START), 0.0, 1.0)
    solution = fo.integrate(
        system.flow,
        fo.Splitting("A"),
        WELL,
        START,
        step_size=0.3,
        duration=1.0,
        noise=system.noise(path),
    )
    exact = START + 0.3 + 0.7 * path(0.0, 1.0)
    torch.testing.assert_close(solution.position, exact, rtol=0, atol=1e-13)
    assert (
        solution.engine == "eager torch: a kernel draws from the seed's own noise, not from "
        "the one given"
    )


def test_a_single_trajectory_is_a_batch_of_one():
    system = system_of(LANGEVIN)
    packed = system.pack(START[0])
    assert packed.shape == (1, 2)
    path = system.path(packed, 0.0, 1.0)
    single = our_end(system, path, 4, fo.Splitting("BAOAB"), START[0])
    batch = our_end(system, path, 4, fo.Splitting("BAOAB"), START[:1])
    assert torch.equal(single.position, batch.position[0])


def test_ends_are_differentiable():
    system = system_of(LANGEVIN, fo.problems.quadratic([2.0]))
    start = START[:1].clone().requires_grad_()
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    end = torchsde.sdeint(system, system.pack(start), times, dt=0.01, method="euler")[-1]
    (slope,) = torch.autograd.grad(end[0, 0], start)
    decay, frequency = 0.5, math.sqrt(2.0 - 0.25)
    swing = math.cos(frequency) + decay / frequency * math.sin(frequency)
    assert slope.item() == pytest.approx(math.exp(-decay) * swing, abs=0.01)


def _run(noise, **settings):
    settings = {"step_size": 0.1, "steps": 3, **settings}
    return fo.integrate(LANGEVIN, fo.Splitting("BAOAB"), WELL, START, noise=noise, **settings)


def _noise(end=1.0):
    system = system_of(LANGEVIN)
    return system.noise(system.path(system.pack(START), 0.0, end))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: system_of(fo.flows.heavy_ball()), "no noise: use to_torchdiffeq"),
        (lambda: system_of(GEOMETRIC, sde_type="stratonovich"), "readings differ"),
        (lambda: system_of(LANGEVIN).pack(START.reshape(2, 100, 1)), "one axis of trajectories"),
        (lambda: _run(_noise(end=0.15)), "from 0.1 to 0.2 leaves the Brownian path.* 0 to 0.15"),
        (lambda: _run(_noise(), step_size=torch.linspace(0.1, 0.2, 200).double()), "one by one"),
        (lambda: _run(_noise(), compile=True), "compile=True: a kernel draws"),
        (lambda: _run("noise"), "noise='noise' is no noise: give a seed"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(call, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: system_of(LANGEVIN, sde_type="itô"), "no reading 'itô'"),
        (lambda: system_of(LANGEVIN).path(START, 1.0, 1.0), "begins before it ends"),
        (lambda: system_of(LANGEVIN).path(START, 0.0, 1.0, seed=-1), "whole number"),
    ],
)
def test_a_setting_of_no_use_is_refused(call, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        call()


def test_trajectories_that_diverge_on_a_path_leave_the_others_on_theirs():
    flow, problem = fo.flows.overdamped_langevin(temperature=0.1), fo.problems.double_well()
    start = torch.tensor([[0.5], [1e3], [-1.2]], dtype=torch.float64)
    system = fo.adapters.to_torchsde(flow, problem)
    path = system.path(system.pack(start), 0.0, 1.0, seed=1)

    def run(chosen):
        noise = system.noise(path)
        settings = {"step_size": 0.1, "steps": 10, "noise": noise}
        return fo.integrate(flow, fo.EulerMaruyama(), problem, chosen, **settings)

    solution = run(start)
    assert [fo.Status(s).name for s in solution.status.tolist()][1] == "DIVERGED"
    calm = run(torch.where(start == 1e3, 0.9, start))
    assert torch.equal(solution.position[[0, 2]], calm.position[[0, 2]])
    with pytest.raises(fo.CompatibilityError, match="at different times"):
        run(solution.state)
