import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from flowopt.diagnostics.basins import LOST, UNFINISHED
from flowopt.errors import ConfigurationError
from studies.basins import maps
from studies.basins import statistics as basins_statistics
from studies.basins.config import PRESETS
from studies.basins.figures import portraits as picture
from studies.basins.methods import METHODS, method
from studies.basins.parts import portraits
from studies.basins.statistics import leave_rates, shapes, statistics

CONFIG = replace(PRESETS["smoke"], pixels=20, near=4, methods=("gd@0.1",))
TWO = maps.problem("poly_two")
KNOWN = maps.landmarks(TWO)


@pytest.fixture
def arrays():
    """Two maps of 20 × 20 starts drawn by hand: two halves, and the same with three edges lost."""
    flow = np.repeat([[0] * 10 + [1] * 10], 20, axis=0).astype(np.int8)
    labels = flow.copy()
    labels[0] = KNOWN.kinds.index("saddle")
    labels[:, 0] = LOST
    labels[:, -1] = UNFINISHED
    one = {
        "map_label": (("map_problem", "map_method", "map_row", "map_column"), [[flow, labels]]),
        "map_leave": (("map_problem", "map_method", "map_radius"), [[[0, 0, 0], [1, 2, 3]]]),
        "map_rises": (("map_problem", "map_method"), [[0.0, 0.125]]),
        "map_above_start": (("map_problem", "map_method"), [[0.0, 0.25]]),
        "map_steps": (("map_problem", "map_method"), [[7.0, 100.0]]),
        "map_cost": (("map_problem", "map_method"), [[21.0, 300.0]]),
    }
    return xr.Dataset(one, {"map_problem": ["poly_two"], "map_method": portraits.names(CONFIG)})


def test_every_number_of_a_map_drawn_by_hand_is_as_counted(arrays):
    found = statistics(arrays, "poly_two", "gd@0.1", CONFIG)
    assert (found.lost, found.unfinished) == (5.0, 5.0)
    # Two columns of 20 and the 18 pixels between them.
    assert found.unlike_flow == found.unlike_ode == 100 * 58 / 400
    assert (found.leave, found.leave_middle, found.leave_far) == (1.0, 2.0, 3.0)
    assert (found.parts, found.convexity) == (2, 1.0)
    assert found.dimension == 2.0 - found.exponent
    assert (found.rises, found.above_start, found.steps, found.cost) == (12.5, 25.0, 100.0, 300.0)


def test_the_flow_disagrees_with_nothing_and_has_no_own_equation(arrays):
    found = statistics(arrays, "poly_two", "gradient_flow", CONFIG)
    assert found.unlike_flow == found.trap == 0.0 and math.isnan(found.unlike_ode)


def test_the_table_of_ends_has_every_class_with_its_interval(arrays):
    header, rows = portraits.end_shares(arrays, "poly_two", CONFIG, KNOWN)
    cells = dict(zip(header, rows[1], strict=True))
    assert cells["strict saddles"].startswith("4.50 (") and cells["maxima"].startswith("0.00 (0.00")
    assert cells["diverged"] == cells["not converged"] == "5.00 (3.26–7.60)"
    assert header[1:5] == KNOWN.names[:4]
    # 19 rows of 9 columns each.
    assert cells[KNOWN.names[0]].startswith(f"{100 * 171 / 400:.2f} (")


def test_ends_of_every_problem_are_counted_once():
    for name in ("poly_two", "poly_five", "sine", "one_datum", "rosenbrock"):
        known = maps.landmarks(maps.problem(name))
        counted = [label for labels in portraits.end_columns(known).values() for label in labels]
        assert sorted(counted) == [-3, -2, -1, *range(len(known.kinds))]


def test_columns_of_stripes_are_convex_parts():
    stripes = torch.tensor([0] * 5 + [1] * 5 + [0] * 10).expand(20, -1)
    found = shapes(stripes, [0, 1])
    assert found.parts == 3
    # The hull of both stripes of 0 is the whole map: 15 of 20 columns; stripe 1 is its own.
    assert found.convexity == pytest.approx((0.75 + 1.0) / 2)


def test_who_climbs_leaves_every_minimum_and_the_flow_leaves_none():
    runaway = replace(METHODS["gd"](10.0), name="gd@10")
    assert leave_rates(runaway, TWO, CONFIG) == [100.0] * 3
    assert leave_rates(method("gradient_flow"), TWO, CONFIG, (0.1, 0.2)) == [0.0, 0.0]


def test_random_starts_give_shares_and_no_shapes():
    config = replace(CONFIG, sampling="random")
    found = {name: compute() for name, compute in portraits.units(config).items()}
    arrays = portraits.joined(found, replace(config, problems=("poly_two",)))
    numbers = statistics(arrays, "poly_two", "gd@0.1", config)
    # 22.2 % of many starts diverge; five standard errors of 400.
    assert numbers.lost == pytest.approx(22.2, abs=5 * 100 * math.sqrt(0.222 * 0.778 / 400))
    assert numbers.trap == 0.0 and math.isnan(numbers.dimension) and math.isnan(numbers.parts)
    assert "20 × 20 random starts" in portraits.section(arrays, config)


def test_a_picture_has_a_legend_entry_for_every_end_and_mark(arrays):
    texts = [text.get_text() for text in picture(arrays.isel(map_problem=0)).legends[0].get_texts()]
    assert {"diverged", "not converged", "minimum", "saddle", "maximum"} <= set(texts)


def test_the_seed_decides_about_noise():
    chosen, start = method("langevin:BAOAB@0.1"), maps.grid(-1.0, 1.0, 3)
    once, again, other = (
        maps.moved(chosen, TWO, start, most_steps=5, seed=seed).position for seed in (3, 3, 4)
    )
    assert torch.equal(once, again)
    assert not torch.isclose(once, other).any()


def test_the_seed_of_a_map_is_that_of_all_its_noise(monkeypatch):
    seeds = []

    def recorded(moves):
        def record(*given, seed):
            seeds.append(seed)
            return moves(*given, seed=seed)

        return record

    for module, name in ((portraits, "ends"), (basins_statistics, "ends"), (portraits, "rises")):
        monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    config = replace(CONFIG, seed=7)
    portraits._mapped("poly_two", method("gd@0.1"), config)
    assert len(seeds) == 2 + len(portraits.RADII)
    assert set(seeds) == {7}


def test_parameters_that_a_problem_does_not_have_are_no_axes():
    with pytest.raises(ConfigurationError, match=r"axes came as \(0, 2\), and poly_two has 2"):
        maps.starts(TWO, replace(CONFIG, axes=(0, 2)))
