"""Records of runs, and the rows that minibatches draw."""

import math

import pytest
import torch

import flowopt as fo
from tests.reference.training import flat_position, small_problem

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
STARTS = torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.2, -1.1]], dtype=torch.float64)
BAOAB = fo.Splitting("BAOAB")


def run(flow=None, scheme=None, problem=QUADRATIC, start=START, **settings):
    step = {} if "control" in settings else {"step_size": 0.1}
    steps = {} if "duration" in settings else {"steps": 5}
    settings = {**step, **steps, **settings}
    return fo.integrate(
        flow or fo.flows.gradient_flow(), scheme or fo.Euler(), problem, start, **settings
    )


def test_records_are_taken_every_so_many_steps_from_the_start():
    solution = run(record={"loss": 1, "position": 2, "theta": 5}, steps=7)
    torch.testing.assert_close(
        solution.times["loss"], 0.1 * torch.arange(8, dtype=torch.float64), rtol=1e-14, atol=0
    )
    assert solution.records["position"].shape == (4, 2)
    assert solution.records["theta"].shape == (2, 2)
    assert torch.equal(solution.records["position"][0], START)
    assert torch.equal(
        solution.records["loss"][2::2], QUADRATIC.loss(solution.records["position"][1:])
    )


def test_a_record_is_not_a_number_after_the_end_of_its_trajectory():
    solution = run(
        start=STARTS,
        duration=torch.tensor([0.2, 0.5, 0.4], dtype=torch.float64),
        record={"position": 1, "loss": 2},
    )
    ended = torch.isnan(solution.times["position"])
    assert ended.sum(0).tolist() == [3, 0, 1]
    assert torch.equal(torch.isnan(solution.records["position"]).all(-1), ended)
    assert torch.isnan(solution.records["loss"]).sum(0).tolist() == [1, 0, 0]


def test_records_of_a_batch_are_those_of_its_members():
    names = {"loss": 1, "mechanical": 2, "p": 3, "step_size": 2}
    settings = {"flow": fo.flows.heavy_ball(), "scheme": BAOAB, "record": names}
    together = run(**settings, start=STARTS)
    for member, start in enumerate(STARTS):
        alone = run(**settings, start=start)
        for name in names:
            assert torch.equal(together.records[name][:, member], alone.records[name])
            assert torch.equal(together.times[name][:, member], alone.times[name])


def test_functions_are_recorded_under_their_names():
    def speed(state, evaluation):
        return torch.stack(state.variables["p"]).norm(dim=0)

    solution = run(
        fo.flows.heavy_ball(),
        BAOAB,
        start=STARTS,
        record={speed: 1, "half": (2, lambda state, evaluation: evaluation.loss / 2), "p": 1},
    )
    speeds = solution.records["p"].norm(dim=-1)
    torch.testing.assert_close(solution.records["speed"], speeds, rtol=1e-15, atol=0)
    assert torch.equal(solution.records["half"][0], QUADRATIC.loss(STARTS) / 2)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (torch.ones(2), r"gave torch.float32, \(2,\), expected real numbers of shape \(3,\)"),
        (torch.ones(3, dtype=torch.complex64), r"gave torch.complex64, \(3,\)"),
        ("loss", "gave 'loss', expected a tensor or a number"),
    ],
)
def test_what_is_no_number_for_every_trajectory_is_not_recorded(answer, match):
    with pytest.raises(fo.ConfigurationError, match=match):
        run(start=torch.ones(3, 2), record={"odd": (1, lambda state, evaluation: answer)})


def test_the_first_energy_is_recorded_as_energy():
    solution = run(
        fo.flows.heavy_ball(), BAOAB, record={"energy": 1, "mechanical": 1, "p": 1, "loss": 1}
    )
    records = solution.records
    assert torch.equal(records["energy"], records["mechanical"])
    torch.testing.assert_close(
        records["energy"], records["loss"] + (records["p"] ** 2).sum(-1) / 2, rtol=1e-15, atol=0
    )


def test_the_energy_of_a_method_is_recorded_in_physical_time():
    method = fo.classic.sgd(lr=0.02, momentum=0.9)
    solution = run(
        method.flow,
        method.scheme,
        step_size=method.step_size,
        record={"energy": 1, "loss": 1, "m": 1},
    )
    rate = -math.log(0.9) / method.step_size
    records = solution.records
    gain = 1 / (1 - 0.9)
    expected = rate * gain * records["loss"] + (records["m"] ** 2).sum(-1) / 2
    torch.testing.assert_close(records["energy"], expected, rtol=1e-13, atol=0)


def test_scalars_of_a_method_are_recorded():
    solution = run(fo.flows.adam(), fo.Splitting("TMVA"), step_size=1e-3, record={"u_m": 1})
    times = solution.times["u_m"]
    torch.testing.assert_close(
        solution.records["u_m"], -torch.expm1(-105.0 * times), rtol=1e-13, atol=0
    )


def test_records_of_a_network_hold_its_parameters_in_one_row():
    problem = small_problem()
    solution = run(problem=problem, start=problem.start(), record={"position": 5})
    assert solution.records["position"].shape == (2, problem.dim)
    assert torch.equal(solution.records["position"][1], flat_position(solution.position))


def test_progress_is_told_of_every_step():
    told = []
    run(progress=told.append, steps=6)
    assert sum(told) == 6


def rows_of(problem, steps, **arguments):
    return [problem.draw(step, 7, (), **arguments) for step in range(steps)]


def test_an_epoch_shows_every_row_once():
    problem = small_problem()
    rows = torch.cat(rows_of(problem, 4))
    assert rows.sort().values.tolist() == list(range(40))
    assert not torch.equal(rows, torch.cat(rows_of(problem, 8)[4:]))


def test_a_draw_depends_on_step_and_seed_alone():
    problem = small_problem()
    later = problem.draw(9, 7, ())
    rows_of(problem, 4)
    assert torch.equal(problem.draw(9, 7, ()), later)
    assert not torch.equal(problem.draw(9, 8, ()), later)


def test_replicas_see_the_same_rows_unless_told_otherwise():
    problem = small_problem()
    assert problem.draw(0, 7, (3,)).shape == (10,)
    problem.minibatches = fo.problems.Minibatches(10, shared=False)
    own = problem.draw(0, 7, (3,))
    assert own.shape == (3, 10)
    assert not torch.equal(own[0], own[1])
