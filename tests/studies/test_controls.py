"""The study of controls at smoke size."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flowopt.errors import ConfigurationError
from studies.common.data import digits
from studies.controls import run as run_module
from studies.controls.config import PRESETS, Config
from studies.controls.figures import draw
from studies.controls.report import points_above_best
from studies.controls.run import run
from studies.controls.training import budget, train, training_rows

EXPECTED = json.loads(Path(run_module.__file__).with_name("expected.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(PRESETS["smoke"], out=tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("method", PRESETS["smoke"].methods)
def test_the_smoke_run_ends_where_it_is_expected(folder, method):
    arrays = folder.read_dataset("arrays.nc").sel(optimizer=method)
    for name, entry in EXPECTED["numbers"].items():
        found = arrays[name].mean("seed").values
        assert found == pytest.approx(entry["values"][method], abs=entry["tolerance"])


def test_no_run_costs_more_than_the_budget_and_all_use_it_up(folder):
    arrays = folder.read_dataset("arrays.nc")
    most = budget(PRESETS["smoke"], 1437)
    # The last step of a control that rejects is not cut short.
    assert (arrays.cost >= most - 3).all()
    assert (arrays.cost.sel(optimizer=["adam", "slope_adam"]) <= most).all()


def test_report_and_figure_name_every_method(folder):
    text = (folder.path / "report.md").read_text("utf-8")
    assert all(f"| {method}" in text for method in PRESETS["smoke"].methods)
    assert [path.suffix for path in draw(folder)] == [".png", ".pdf"]


def test_accuracies_are_compared_with_the_best_rate_seed_by_seed():
    accuracy = [[[0.5, 0.6], [0.9, 0.7]], [[0.8, 0.9], [0.4, 0.1]]]
    arrays = xr.Dataset(
        {"test_accuracy": (("optimizer", "rate", "seed"), accuracy)},
        {"optimizer": ["adam", "slope_adam"], "rate": [0.01, 0.1]},
    )
    rate, points = points_above_best(arrays)
    assert rate == 0.1
    expected = [[[-40, -10], [0, 0]], [[-10, 20], [-50, -60]]]
    assert points.values == pytest.approx(np.array(expected))


def test_the_share_of_random_labels_is_the_one_asked_for():
    data = digits()
    _, changed = training_rows(data, Config(random_labels=0.2), 0)
    # A drawn label is the old one in a tenth of the cases; five standard errors.
    share = (changed != data.train_labels).double().mean().item()
    assert share == pytest.approx(0.18, abs=5 * (0.18 * 0.82 / 1437) ** 0.5)


def test_all_rows_at_every_step_are_one_minibatch():
    config = Config(batch=0, epochs=3)
    unit = train(config, digits(), "energy_adam", 1e-2, 0)
    assert budget(config, 1437) == 9
    assert 6 <= int(unit.cost) <= 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"methods": ("adm",)}, "did you mean 'adam'"),
        ({"methods": ("adam", "adam")}, "method 'adam' came twice"),
        ({"rates": (0.1, 0.2, 0.1)}, "rate 0.1 came twice"),
        ({"rates": (0.0,)}, "rates came as"),
        ({"random_labels": 1.5}, "random_labels came as 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Config(**settings)


def test_rates_that_hardly_differ_are_runs_of_their_own():
    names = {run_module._unit(("adam", rate, 0)) for rate in (0.1, 0.1000001, 0.10000001)}
    assert len(names) == 3
