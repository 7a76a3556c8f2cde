"""Checkpoints saved by some processes and loaded by more, or fewer."""

import pytest

from tests.distributed.test_shards import assert_same
from tests.distributed.training import STEPS, alone, resumed, sharded, trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
CASES = [
    ("Adam", {}),
    ("Adam", {"compile": True}),
    ("Langevin", {}),
    ("Langevin", {"compile": True}),
    ("AdLaLa", {}),
    ("blocks", {}),
    ("EnergyMomentum", {}),
]
each_case = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{n}{'-compiled' * bool(o)}" for n, o in CASES]
)


@each_case
def test_two_processes_hand_over_to_four_and_these_to_one(groups, name, options, tmp_path):
    first, second, third = (str(tmp_path / number) for number in "123")
    begun = groups[2].run(resumed, name, sharded, options, range(1), None, first)
    middle = groups[4].run(resumed, name, sharded, options, range(1, 3), first, second)
    last = resumed(name, alone, options, range(3, STEPS), second, third)
    for (loaded, _), (_, saved) in ((middle[0], begun[0]), (last, middle[0])):
        assert_same(loaded, saved, rtol=0, atol=0)
    assert_same(last[1], trained(name, alone, options), rtol=1e-9, atol=1e-12)


@each_case
def test_two_processes_go_on_to_the_last_bit(groups, name, options, tmp_path):
    first, second = (str(tmp_path / number) for number in "12")
    groups[2].run(resumed, name, sharded, options, range(2), None, first)
    again = groups[2].run(resumed, name, sharded, options, range(2, STEPS), first, second)
    whole = groups[2].run(trained, name, sharded, options)
    assert_same(again[0][1], whole[0], rtol=0, atol=0)
