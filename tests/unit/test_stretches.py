"""Functions of lists in stretches: the same values, from as few tensors at a time as needed."""

import pytest
import torch

from flowopt.symbolic.printing.stretches import FEW, in_stretches


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([FEW] * 24, [3] * 8),
        ([8 * FEW, FEW // 2, FEW // 2, FEW], [1, 2, 1]),
        ([10] * 5, [5]),
        ([0, 0, 7], [3]),
        ([0, 9 * FEW, 0, FEW], [2, 2]),
    ],
)
def test_stretches_hold_an_eighth_of_all_elements(sizes, lengths):
    seen = []

    def function(scale, left, right):
        seen.append(len(left))
        return [scale * a for a in left], [a - b for a, b in zip(left, right, strict=True)]

    left = [torch.full((size,), float(place)) for place, size in enumerate(sizes)]
    right = [torch.ones(size) for size in sizes]
    found = in_stretches(function, [False, True, True])(2.0, left, right)
    assert seen == lengths
    for ours, expected in zip(found, function(2.0, left, right), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_lists_that_are_not_on_the_cpu_stay_whole():
    lists = [torch.empty(FEW, device="meta") for _ in range(24)]
    seen = []
    in_stretches(lambda given: (seen.append(len(given)) or given,), [True])(lists)
    assert seen == [24]
