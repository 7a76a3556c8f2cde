import math

import pytest
import torch

from flowopt.diagnostics import (
    basin_entropy,
    binomial_interval,
    boundary,
    components,
    convexity,
    end_labels,
)
from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from flowopt.errors import DataError

POINTS = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)


def _columns(pattern, rows=20):
    return torch.tensor(pattern).expand(rows, -1)


def _ends(position, gradient):
    position, gradient = (torch.tensor([v], dtype=torch.float64) for v in (position, gradient))
    return end_labels(position, gradient, POINTS, tolerance=1e-4).item()


@pytest.mark.parametrize(
    ("position", "gradient", "label"),
    [
        ([0.01, 0.0], [0.0, 0.0], 0),
        ([1.0, -0.049], [1e-5, 0.0], 1),
        ([1.0, -0.051], [1e-5, 0.0], ELSEWHERE),
        ([0.01, 0.0], [1e-3, 0.0], UNFINISHED),
        ([0.01, 0.0], [1e3, 1.0], LOST),
        ([0.01, 0.0], [math.nan, 0.0], LOST),
        ([math.inf, 0.0], [0.0, 0.0], LOST),
    ],
)
def test_an_end_is_named_by_the_nearest_point_or_by_what_went_wrong(position, gradient, label):
    assert _ends(position, gradient) == label


def test_without_known_points_every_convergence_is_elsewhere():
    none = torch.zeros(3, 2, dtype=torch.float64)
    labels = end_labels(none, none, torch.empty(0, 2, dtype=torch.float64), tolerance=1.0)
    assert labels.tolist() == [ELSEWHERE] * 3


def test_the_binomial_interval_is_wilsons():
    z, n, p = 1.959963984540054, 10_000, 0.2
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert binomial_interval(2000, n) == pytest.approx((middle - half, middle + half), rel=1e-9)


def test_the_interval_of_an_event_that_never_came_begins_at_zero():
    assert binomial_interval(0, 50).low == 0.0
    with pytest.raises(DataError):
        binomial_interval(2, 1)


def test_components_touch_by_sides_and_not_by_corners():
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    assert components(checks, 0) == components(checks, 1) == 18
    assert components(torch.zeros(6, 6), 0) == 1
    assert components(torch.zeros(6, 6), 3) == 0


def test_a_rectangle_is_convex_and_a_missing_quarter_is_an_eighth_of_the_hull_less():
    square = torch.zeros(12, 12)
    square[2:10, 2:10] = 1
    assert convexity(square, 1) == 1.0
    square[2:6, 2:6] = 0
    # The hull is the square less a right triangle with legs of four pixels.
    assert convexity(square, 1) == pytest.approx(48 / (64 - 8), rel=1e-12)
    assert math.isnan(convexity(square, 7))


def test_a_straight_boundary_has_dimension_one():
    found = boundary(_columns([0] * 20 + [1] * 20))
    assert found.dimension == pytest.approx(1.0, abs=1e-12)
    assert found.shares.tolist() == pytest.approx([2 * e / 40 for e in range(1, 17)])


def test_labels_drawn_at_random_are_all_boundary():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200, 200), generator=generator)
    # Each share has the mean 1 − 2⁻⁴ within, a standard error of about 0.003 and edges below it.
    assert boundary(labels).dimension == pytest.approx(2.0, abs=0.02)


def test_points_on_a_cantor_set_have_its_dimension():
    segment = torch.ones(1, dtype=torch.int64)
    for _ in range(7):
        segment = torch.cat([segment, torch.zeros_like(segment), segment])
    # Every gap is a basin of its own, so that two labels differ where a point lies between them.
    gaps = torch.cumsum(segment, 0)
    found = boundary(gaps.expand(100, -1), distances=(3, 9, 27, 81))
    assert found.dimension == pytest.approx(1 + math.log(2) / math.log(3), abs=0.01)


def test_a_map_of_one_label_has_no_boundary():
    found = boundary(torch.zeros(40, 40))
    assert math.isnan(found.dimension) and found.shares.sum() == 0
    assert basin_entropy(torch.zeros(40, 40)).everywhere == 0.0
    assert math.isnan(basin_entropy(torch.zeros(40, 40)).boundary)


def test_the_entropy_of_a_straight_boundary_is_that_of_the_boxes_it_cuts():
    # The boundary leaves two of five columns of its boxes to the left: a quarter of all boxes.
    labels = _columns([0] * 7 + [1] * 13)
    mixed = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    assert basin_entropy(labels) == pytest.approx((mixed / 4, mixed), rel=1e-12)


def test_boxes_of_all_labels_in_equal_shares_have_the_largest_entropy():
    labels = torch.arange(4).repeat(5, 5)[:4].reshape(4, 20)
    assert basin_entropy(labels, box=4).everywhere == pytest.approx(math.log(4), rel=1e-12)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: boundary(torch.zeros(16, 40)),
        lambda: basin_entropy(torch.zeros(4, 40)),
        lambda: components(torch.zeros(4), 0),
        lambda: boundary(torch.zeros(40, 40), distances=(1,)),
        lambda: boundary(torch.zeros(40, 40), distances=(0, 1)),
        lambda: basin_entropy(torch.zeros(40, 40), box=0),
    ],
)
def test_maps_distances_and_boxes_of_no_use_are_refused(broken):
    with pytest.raises(DataError):
        broken()


def test_known_points_may_be_of_another_type_than_positions():
    places = torch.tensor([[0.0, 0.0], [5.0, 5.0]], dtype=torch.float64)
    labels = end_labels(places, torch.zeros_like(places), torch.zeros(1, 2), tolerance=1e-3)
    assert labels.tolist() == [0, ELSEWHERE]
