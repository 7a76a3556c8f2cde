"""Partitions: what is divided, and what is refused in words."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.core.evaluation import Evaluation
from tests.reference.training import small_network, small_problem

PLANE = fo.problems.rosenbrock()
BALL, THERMOSTAT = fo.flows.heavy_ball(), fo.flows.adaptive_langevin(temperature=0.1)
NETWORK = small_network()


def two(**settings):
    partition = fo.Partition(PLANE, {"first": 0, "second": 1})
    flows = {"first": THERMOSTAT, "second": BALL}
    return fo.PartitionedFlow(partition, settings.pop("flows", flows), **settings)


@pytest.mark.parametrize("problem", [NETWORK, small_problem()], ids=["module", "network"])
@pytest.mark.parametrize(
    ("blocks", "places"),
    [
        ({"first": "0.*", "second": "2.*"}, {"first": (0, 1), "second": (2, 3)}),
        ({"weights": "*.weight", "rest": ...}, {"weights": (0, 2), "rest": (1, 3)}),
        ({"all": ["2.bias", "0.*", 2]}, {"all": (0, 1, 2, 3)}),
    ],
)
def test_parameters_are_named_by_patterns(problem, blocks, places):
    assert dict(fo.Partition(problem, blocks).blocks) == places


def test_frozen_parameters_are_in_no_block():
    module = small_network()
    module[0].weight.requires_grad_(False)
    assert fo.Partition(module, {"all": ...}).leaves == ("0.bias", "2.weight", "2.bias")


@pytest.mark.parametrize(
    ("problem", "blocks", "message"),
    [
        (PLANE, {"first": 0}, "no block has 1: every leaf is in one block"),
        (PLANE, {"first": 0, "second": [0, 1]}, "leaf '0' is in blocks 'first' and 'second'"),
        (PLANE, {"first": 2, "rest": ...}, "2 names none of the 2 leaves 0, 1"),
        (PLANE, {"first": [0, 1], "rest": ...}, "block 'rest' is empty: leave it out"),
        (PLANE, {"first": True, "rest": ...}, "True names none"),
        (PLANE, {"1st": 0, "rest": ...}, "'1st' can not name a block"),
        (PLANE, {}, "give names and leaves"),
        (NETWORK, {"first": "1.*", "rest": ...}, "'1.*' names none of the 4 leaves 0.weight"),
        (fo.problems.quadratic([1.0] * 20), {"a": [0], "b": [1]}, "coordinates has one leaf"),
        (3, {"a": 0}, "int has no leaves to divide"),
    ],
)
def test_a_partition_covers_every_leaf_once(problem, blocks, message):
    with pytest.raises(fo.PartitionError) as caught:
        fo.Partition(problem, blocks)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"flows": {"first": BALL}}, fo.PartitionError, "flows are given for ['first']: one each"),
        ({"flows": {"first": BALL, "second": fo.Euler()}}, fo.PartitionError, "got Euler"),
        ({"letters": {"third": {}}}, fo.PartitionError, "no blocks ['third']"),
        ({"pace": {"third": 2.0}}, fo.PartitionError, "no blocks ['third']"),
        ({"pace": {"first": "fast"}}, fo.DefinitionError, "first.pace = 'fast' is no real number"),
        ({"letters": {"first": {"O": "CXC"}}}, fo.PartitionError, "the flow has no ['X']"),
        ({"letters": {"first": {"O": "C", "D": "C"}}}, fo.PartitionError, "have two meanings"),
        ({"letters": {"first": {"C": "D"}}}, fo.PartitionError, "letter of the flow belongs"),
        ({"letters": {"first": {"o": "C"}}}, fo.PartitionError, "letter 'o' can not mean 'C'"),
        ({"letters": {"first": {"O": 3}}}, fo.PartitionError, "letter 'O' can not mean 3"),
        ({"letters": {"second": {"X": "ABO"}}}, fo.CompatibilityError, "uses the gradient after"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(settings, error, message):
    with pytest.raises(error) as caught:
        two(**settings)
    assert message in str(caught.value)


def test_a_word_covers_what_all_blocks_have():
    with pytest.raises(fo.CompatibilityError, match="leaves out"):
        fo.Splitting("BAOAB").check(two())
    fo.Splitting("BACDEOEDCAB").check(two())


def test_a_block_has_a_word_of_its_own():
    flow = two(letters={"first": {"O": "CDEDC"}})
    assert flow.word("first", "AOAB") == "ACDEDCAB"
    assert flow.word("second", "(AO)B(AO)") == "(AO)B(AO)"
    for block, word in (("third", "AOAB"), ("first", "aoab")):
        with pytest.raises(fo.PartitionError, match="give one of the blocks"):
            flow.word(block, word)


def test_letters_that_mean_several_do_not_move_jointly():
    flow = two(letters={"first": {"O": "CDEDC"}})
    with pytest.raises(fo.CompatibilityError, match="mean one letter each"):
        fo.Splitting("(AO)B").check(flow)


def test_a_partition_of_another_problem_is_refused():
    start = torch.zeros(3, dtype=torch.float64)
    flow = two(letters={"first": {"O": "CDEDC"}})
    with pytest.raises(fo.PartitionError, match="make the partition from that problem"):
        fo.integrate(
            flow,
            fo.Splitting("BAOAB"),
            fo.problems.quadratic([1.0] * 3),
            start,
            step_size=0.1,
            steps=1,
        )


def test_hyperparameters_are_named_by_their_block():
    flow = two(letters={"first": {"O": "CDEDC"}}, pace={"second": 0.5})
    names = ["coupling", "driving_noise", "temperature"]
    expected = [*(f"first.{name}" for name in names), "second.friction", "second.pace"]
    assert list(flow.hyperparameters) == expected
    changed = flow.with_hyperparameters(**{"second.friction": 3.0, "second.pace": 0.25})
    assert changed.hyperparameters["second.friction"].item() == 3.0
    assert changed.hyperparameters["second.pace"].item() == 0.25
    with pytest.raises(fo.DefinitionError, match="no hyperparameters"):
        flow.with_hyperparameters(friction=1.0)


def test_each_trajectory_may_have_its_own_hyperparameters_and_pace():
    temperatures = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    pace = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    flow = fo.flows.langevin(temperature=temperatures)
    both = two(flows={"first": flow, "second": BALL}, pace={"second": pace})
    start = torch.ones(3, 2, dtype=torch.float64)
    run = {"step_size": 0.01, "steps": 20, "compile": False}
    batch = fo.integrate(both, fo.Splitting("BAOAB"), PLANE, start, **run)
    one = fo.integrate(both.member((0,)), fo.Splitting("BAOAB"), PLANE, start[0], **run)
    assert torch.equal(batch.position[0], one.position)
    slowed = two(flows={"first": BALL, "second": BALL}, pace={"second": pace})
    with pytest.raises(fo.CompatibilityError, match=r"second\.pace"):
        fo.integrate(slowed, fo.Splitting("BAOAB"), PLANE, start[:2], **run)


def test_the_variables_of_blocks_are_recorded():
    flow = two(letters={"first": {"O": "CDEDC"}})
    start = torch.ones(4, 2, dtype=torch.float64)
    record = {"first.p": 2, "first.xi": 3, "position": 6, "energy": 1}
    solution = fo.integrate(
        flow, fo.Splitting("BAOAB"), PLANE, start, step_size=0.001, steps=6, record=record
    )
    shapes = {name: tuple(values.shape) for name, values in solution.records.items()}
    assert shapes == {
        "first.p": (4, 4, 1),
        "first.xi": (3, 4),
        "position": (2, 4, 2),
        "energy": (7, 4),
    }


@pytest.mark.parametrize("moving", ["first.p", "second.p"])
def test_rest_is_where_no_block_moves(moving):
    zero = torch.zeros((), dtype=torch.float64)
    still = {"theta": (zero, zero), "first.p": (zero,), "second.p": (zero,)}
    evaluation = Evaluation(zero, (zero, zero))
    at_rest = fo.State(still, {}, zero, zero)
    assert fo.stop.rest(1e-3).condition(at_rest, evaluation)
    flying = fo.State({**still, moving: (zero + 1,)}, {}, zero, zero)
    assert not fo.stop.rest(1e-3).condition(flying, evaluation)
    assert fo.stop.gradient(1e-3).condition(flying, evaluation)


def test_a_network_is_divided_by_its_layers():
    problem = small_problem()
    partition = fo.Partition(problem, {"first": "0.*", "rest": ...})
    flows = {"first": fo.flows.heavy_ball(friction=1.0), "rest": fo.flows.gradient_flow()}
    flow = fo.PartitionedFlow(partition, flows, letters={"rest": {"B": "A"}})
    start = problem.start(2)
    solution = fo.integrate(
        flow, fo.Splitting("OBA"), problem, start, step_size=0.1, steps=5, record={"first.p": 5}
    )
    momentum = solution.state.variables["first.p"]
    assert [leaf.shape for leaf in momentum] == [(2, 8, 5), (2, 8)]
    assert solution.records["first.p"].shape == (2, 2, 48)
    again = fo.integrate(flow, fo.Splitting("OBA"), problem, start, step_size=0.1, steps=3)
    again = fo.integrate(flow, fo.Splitting("OBA"), problem, again.state, step_size=0.1, steps=2)
    assert all(torch.equal(solution.position[n], again.position[n]) for n in solution.position)


def test_the_whole_is_described():
    flow = two(letters={"first": {"O": "CDEDC"}}, pace={"second": 0.5}, name="thermal")
    assert "first: <flow adaptive_langevin" in repr(flow)
    assert "with O: CDEDC; second: <flow heavy_ball" in repr(flow)
    assert ", pace 0.5" in repr(flow)
    assert repr(fo.Partition(nn.Linear(2, 1), {"a": "weight", "b": "bias"})) == (
        "<partition a: weight; b: bias>"
    )
