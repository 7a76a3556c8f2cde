"""Optimizers under a control: the steps of `integrate`, and what survives files and copies."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.optimizers import assert_identical
from tests.reference.training import (
    flat_parameters,
    flat_position,
    small_network,
    small_problem,
)

SLOPE = fo.ExpectedSlope(first_step=0.3, start=1.0)
ENERGY = fo.LyapunovControl(first_step=8.0, growth=3.0)
DESCENT = fo.flows.gradient_flow()
BALL = fo.flows.heavy_ball(friction=1.0)


def controlled(module, control=ENERGY, flow=DESCENT, scheme=None, **options):
    scheme = scheme or fo.Splitting("A" if flow is DESCENT else "OBA")
    return FlowOptimizer(module.parameters(), flow, scheme, control=control, seed=0, **options)


def train(module, optimizer, steps, first=0, by="loss"):
    """A loop on the minibatches of `small_problem`; its losses at the start of each step."""
    problem, losses = small_problem(), []
    for step in range(first, first + steps):
        rows = problem.draw(step, 0, ())

        def loss(rows=rows):
            return cross_entropy(module(problem.inputs[rows]), problem.targets[rows])

        def closure(loss=loss):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        if by == "gradient":
            closure()
            optimizer.step()
        else:
            value = optimizer.step(loss=loss) if by == "loss" else optimizer.step(closure)
            losses.append(float(value))
    return flat_parameters(module)


def integrated(flow, scheme, control, steps):
    problem = small_problem()
    return fo.integrate(flow, scheme, problem, problem.start(), control=control, steps=steps)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(("flow", "word"), [(DESCENT, "A"), (BALL, "OBA")])
def test_expected_slopes_need_one_gradient_a_step_and_no_closure(flow, word, compile):
    module, scheme = small_network(), fo.Splitting(word)
    optimizer = controlled(module, SLOPE, flow, scheme, compile=compile)
    ours = train(module, optimizer, 30, by="gradient")
    theirs = integrated(flow, scheme, SLOPE, 30)
    torch.testing.assert_close(ours, flat_position(theirs.position), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("compile", [False, True])
def test_beside_a_parameter_lies_the_mean_of_its_path(compile):
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = FlowOptimizer(
        [parameter], DESCENT, fo.Splitting("A"), control=SLOPE, compile=compile
    )
    mean, steps, last = parameter.detach().clone(), 0.0, 0.0
    for step in range(8):
        if step:
            length = optimizer.param_groups[0]["lr"]
            steps = steps * min(1.0, last / length) + 1.0
            mean, last = (steps * mean + parameter.detach()) / (steps + 1.0), length
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
    assert steps < 6.95
    remembered = optimizer.state[parameter]["control_position"]
    torch.testing.assert_close(remembered, mean, rtol=1e-14, atol=0)


@pytest.mark.parametrize("by", ["loss", "closure"])
@pytest.mark.parametrize(("flow", "word"), [(DESCENT, "A"), (BALL, "OBA")])
def test_energies_are_compared_on_one_sample_as_in_integrate(flow, word, by):
    module, scheme = small_network(), fo.Splitting(word)
    optimizer = controlled(module, ENERGY, flow, scheme)
    ours = train(module, optimizer, 25, by=by)
    theirs = integrated(flow, scheme, ENERGY, 25)
    torch.testing.assert_close(ours, flat_position(theirs.position), rtol=1e-11, atol=1e-12)
    rejected = theirs.counts["rejected"].item()
    assert optimizer.counts["rejected"] == rejected > 5
    # One gradient more: the first loss is asked for twice, to see that it stays the same.
    gradients, losses = (26, 25 + rejected) if by == "loss" else (51 + rejected, 0)
    assert (optimizer.counts["gradients"], optimizer.counts["losses"]) == (gradients, losses)


@pytest.mark.parametrize(
    "control", [fo.Constant(0.2), fo.Schedule(lambda step: 0.3 / (1 + step))], ids=repr
)
@pytest.mark.parametrize("compile", [False, True])
def test_step_sizes_that_are_known_beforehand_are_those_of_integrate(control, compile):
    module = small_network()
    ours = train(module, controlled(module, control, compile=compile), 12, by="gradient")
    theirs = integrated(DESCENT, fo.Splitting("A"), control, 12)
    torch.testing.assert_close(ours, flat_position(theirs.position), rtol=1e-12, atol=1e-13)


def test_error_control_steps_a_network():
    module, control = small_network(), fo.ErrorControl(rtol=1e-3, atol=1e-4, first_step=1.0)
    ours = train(module, controlled(module, control, scheme=fo.RungeKutta("heun")), 10)
    theirs = integrated(DESCENT, fo.RungeKutta("heun"), control, 10)
    torch.testing.assert_close(ours, flat_position(theirs.position), rtol=1e-11, atol=1e-12)
    assert theirs.counts["rejected"].item() > 0


def test_a_minimum_of_one_sample_does_not_shorten_the_steps_of_the_next():
    theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = fo.optim.EnergyGD([theta], lr=0.1)
    for _ in range(40):
        optimizer.step(loss=lambda: 5 + (theta**2).sum())
    assert theta.abs().max() < 1e-3
    assert optimizer.param_groups[0]["lr"] > 0.01
    for _ in range(40):
        optimizer.step(loss=lambda: ((theta - 1) ** 2).sum())
    assert (theta - 1).abs().max() < 1e-3


def test_where_every_trial_is_rejected_parameters_stay_exactly():
    parameter = nn.Parameter(torch.tensor([0.1, 0.7], dtype=torch.float64))
    before = parameter.detach().clone()
    control = fo.LyapunovControl(first_step=1.0, shrink=0.999)
    optimizer = FlowOptimizer([parameter], BALL, fo.Splitting("OBA"), control=control)
    # Steep enough that sixty hardly shorter steps all lead uphill.
    optimizer.step(loss=lambda: 1e6 * (parameter**2).sum())
    assert torch.equal(parameter, before)
    assert optimizer.counts["rejected"] == 60
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.999**60)


def through_file(optimizer, module, control):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = controlled(module, control, BALL)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


CASES = [(SLOPE, "gradient"), (ENERGY, "loss"), (fo.Schedule(lambda n: 0.1 / (1 + n)), "gradient")]


@pytest.mark.parametrize(("control", "by"), CASES, ids=["slope", "energy", "schedule"])
def test_a_restored_optimizer_continues_identically(control, by):
    whole = small_network()
    expected = train(whole, controlled(whole, control, BALL), 20, by=by)
    module = small_network()
    optimizer = controlled(module, control, BALL)
    train(module, optimizer, 11, by=by)
    resumed = small_network()
    resumed.load_state_dict(module.state_dict())
    again = through_file(optimizer, resumed, control)
    assert_identical(train(resumed, again, 9, first=11, by=by), expected)
    assert again.counts == optimizer.counts or by == "loss"


@pytest.mark.parametrize(("control", "by"), CASES[:2], ids=["slope", "energy"])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_continues_identically(control, by, duplicate):
    whole = small_network()
    expected = train(whole, controlled(whole, control, BALL), 20, by=by)
    module = small_network()
    optimizer = controlled(module, control, BALL)
    train(module, optimizer, 11, by=by)
    module, optimizer = duplicate((module, optimizer))
    assert_identical(train(module, optimizer, 9, first=11, by=by), expected)


def test_all_trials_of_a_step_draw_the_same_random_numbers_and_the_next_step_others():
    torch.manual_seed(4)
    dropout, seen = nn.Dropout(0.5), []
    parameter = nn.Parameter(torch.ones(16, dtype=torch.float64))
    optimizer = FlowOptimizer([parameter], DESCENT, fo.Euler(), control=ENERGY)

    def loss():
        kept = dropout(torch.ones(16, dtype=torch.float64))
        seen.append(tuple(kept.tolist()))
        return (kept * parameter**2).sum()

    first_calls = []
    for _ in range(3):
        first_calls.append(len(seen))
        optimizer.step(loss=loss)
    steps = [set(seen[a:b]) for a, b in zip(first_calls, [*first_calls[1:], None], strict=True)]
    assert [len(masks) for masks in steps] == [1, 1, 1]
    assert len(set.union(*steps)) == 3


def test_a_closure_that_draws_data_is_refused():
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = FlowOptimizer([parameter], DESCENT, fo.Euler(), control=ENERGY)
    batches = iter(range(1, 100))
    with pytest.raises(fo.CompatibilityError, match="draw the minibatch before step"):
        optimizer.step(loss=lambda: next(batches) * (parameter**2).sum())


def test_the_step_size_in_a_group_may_be_changed():
    module, twin = small_network(), small_network()
    ours, theirs = controlled(module, SLOPE), controlled(twin, SLOPE)
    train(module, ours, 5, by="gradient")
    train(twin, theirs, 5, by="gradient")
    ours.param_groups[0]["lr"] *= 0.5
    train(module, ours, 1, first=5, by="gradient")
    train(twin, theirs, 1, first=5, by="gradient")
    assert ours.param_groups[0]["lr"] == pytest.approx(0.5 * theirs.param_groups[0]["lr"])


WRONG = {
    "lr beside": (lambda p: FlowOptimizer(p, DESCENT, fo.Euler(), 0.1, control=SLOPE), "leave lr"),
    "compiled": (
        lambda p: FlowOptimizer(p, DESCENT, fo.Euler(), control=ENERGY, compile=True),
        "leave compile out",
    ),
    "no loss": (
        lambda p: FlowOptimizer(p, DESCENT, fo.Euler(), control=ENERGY).step(),
        r"call step\(closure\) or step\(loss=",
    ),
    "both": (
        lambda p: FlowOptimizer(p, DESCENT, fo.Euler()).step(lambda: 0, loss=lambda: 0),
        "both a closure and a loss",
    ),
    "groups": (
        lambda p: FlowOptimizer(
            [{"params": p[:1]}, {"params": p[1:]}], DESCENT, fo.Euler(), control=ENERGY
        ),
        "into one group",
    ),
    "noise": (
        lambda p: FlowOptimizer(
            p, fo.flows.langevin(temperature=1.0), fo.Splitting("BAOA"), control=ENERGY
        ),
        "has noise",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_refused(wrong):
    call, message = WRONG[wrong]
    with pytest.raises(fo.CompatibilityError, match=message):
        call([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))])
