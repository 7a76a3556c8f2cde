"""Expected-slope control: against a slow twin, and what a quadratic makes exact."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt import ExpectedSlope
from tests.reference.slopes import controlled_descent
from tests.reference.training import flat_position, small_data, small_network, small_problem

DESCENT = fo.flows.gradient_flow()
GAINS = {"path": 0.1, "cos": 0.1, "sign": 0.01}
CURVATURES = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64)
QUADRATIC = fo.problems.quadratic(CURVATURES)
START = torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("rule", GAINS)
def test_descent_is_the_plain_loop(rule):
    control = ExpectedSlope(first_step=0.03, start=1.0, rule=rule)
    ours = fo.integrate(
        DESCENT,
        fo.Euler(),
        QUADRATIC,
        START,
        control=control,
        steps=130,
        record={"position": 1, "step_size": 1},
    )
    path, lengths = controlled_descent(
        lambda theta, _: CURVATURES * theta,
        START,
        rule=rule,
        gain=GAINS[rule],
        first=0.03,
        steps=130,
    )
    torch.testing.assert_close(ours.records["position"], path, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.records["step_size"], lengths, rtol=1e-11, atol=0)


@pytest.mark.parametrize("rule", GAINS)
def test_with_minibatches_the_slope_is_that_of_the_next_one_and_costs_nothing(rule):
    problem = small_problem()
    control = ExpectedSlope(first_step=0.3, start=1.0, rule=rule)
    ours = fo.integrate(
        DESCENT, fo.Euler(), problem, problem.start(), control=control, steps=25, seed=3
    )
    shapes = problem.start()
    sizes = [value.numel() for value in shapes.values()]

    def gradient(theta, step):
        parts = theta.split(sizes)
        position = tuple(p.reshape(v.shape) for p, v in zip(parts, shapes.values(), strict=True))
        found = problem.evaluate(position, problem.draw(step, 3, ())).gradient
        return torch.cat([leaf.flatten() for leaf in found])

    path, _ = controlled_descent(
        gradient,
        flat_position(problem.start()),
        rule=rule,
        gain=GAINS[rule],
        first=0.3,
        steps=25,
    )
    torch.testing.assert_close(flat_position(ours.position), path[-1], rtol=1e-11, atol=1e-12)
    assert ours.counts["gradients"].item() == 26
    assert ours.counts["losses"].item() == 0


@pytest.mark.parametrize(("share", "sign"), [(1.0, 0.0), (0.9, 1.0), (1.1, -1.0)])
@pytest.mark.parametrize("rule", ["cos", "sign"])
def test_on_a_quadratic_steps_stay_as_long_just_where_they_end_at_the_minimum_of_their_line(
    rule, share, sign
):
    # s = ⟨g − hHg, −hg⟩ = −h|g|²(1 − hκ), κ = gᵀHg/|g|²: zero where h = 1/κ.
    start = torch.ones(3, dtype=torch.float64)
    gradient = CURVATURES * start
    shortest = float(gradient @ gradient) / float(gradient @ (CURVATURES * gradient))
    control = ExpectedSlope(gain=0.5, first_step=share * shortest, start=1.0, rule=rule)
    ours = fo.integrate(
        DESCENT, fo.Euler(), QUADRATIC, start, control=control, steps=1, record={"step_size": 1}
    )
    change = torch.log(ours.records["step_size"][1] / ours.records["step_size"][0])
    if sign:
        assert change.sign().item() == sign
    elif rule == "cos":
        assert abs(change.item()) < 1e-14


def test_where_the_gradient_is_zero_steps_stay_as_long():
    control = ExpectedSlope(first_step=0.1, start=1.0, rule="cos")
    ours = fo.integrate(
        DESCENT,
        fo.Euler(),
        QUADRATIC,
        torch.zeros(3, dtype=torch.float64),
        control=control,
        steps=3,
        record={"step_size": 1},
    )
    assert ours.records["step_size"].tolist() == [0.1] * 4


def test_slopes_that_agree_lengthen_steps_from_a_small_share_of_the_first():
    # Far from the minimum of a line every step ends on a falling slope: ten per cent a step.
    control = ExpectedSlope(first_step=1e-3, start=1e-3)
    ours = fo.integrate(
        DESCENT, fo.Euler(), QUADRATIC, START, control=control, steps=120, record={"step_size": 1}
    )
    lengths = ours.records["step_size"]
    assert lengths[0].item() == 1e-6
    torch.testing.assert_close(
        (lengths[100] / lengths[99]).log(),
        torch.tensor(0.1, dtype=torch.float64),
        rtol=0.02,
        atol=0,
    )


def test_where_the_loss_falls_for_ever_steps_grow_as_fast_late_as_soon():
    # The path counts 1 + e^−0.1 + e^−0.2 + … = 10.5 steps of the present length, not 300.
    problem = fo.problems.Landscape("slope", 1, lambda theta: theta.sum(-1), ())
    ours = fo.integrate(
        DESCENT,
        fo.Euler(),
        problem,
        START[:1],
        control=ExpectedSlope(first_step=1e-3),
        steps=300,
        record={"step_size": 1},
    )
    growth = ours.records["step_size"].log().diff()[200:]
    torch.testing.assert_close(growth, torch.full_like(growth, 0.1), rtol=1e-3, atol=0)


def test_a_run_goes_on_with_steps_as_long_as_its_last_where_they_are_given():
    def run(control, steps, start=START):
        settings = {"steps": steps, "record": {"step_size": 1}}
        return fo.integrate(DESCENT, fo.Euler(), QUADRATIC, start, control=control, **settings)

    control = ExpectedSlope(first_step=0.03)
    whole, half = run(control, 80), run(control, 40)
    anew = run(control, 1, half.state)
    assert anew.records["step_size"][0] == pytest.approx(3e-5)
    last = half.records["step_size"][-1]
    on = run(ExpectedSlope(first_step=last, start=1), 1, half.state)
    assert on.records["step_size"][0] == whole.records["step_size"][40]


def test_a_network_is_trained_with_it_in_one_line():
    training = fo.train(
        small_network(),
        cross_entropy,
        small_data(),
        fo.classic.adam(lr=0.01),
        epochs=20,
        batch=10,
        control=ExpectedSlope(first_step=0.01, start=1.0),
    )
    assert training.history["loss"][-1] < 0.6 * training.history["loss"][0]
    assert training.solution.counts["gradients"].item() == 81


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": 0.0}, "gain is positive"),
        ({"first_step": -1.0}, "first_step is positive"),
        ({"start": 2.0}, r"start lies in \(0, 1\]"),
        ({"rule": "tan"}, "rule='tan': give one of 'path', 'cos', 'sign'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        ExpectedSlope(**settings)
