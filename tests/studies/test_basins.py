import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import flowopt as fo
from flowopt.diagnostics.basins import ELSEWHERE, LOST, UNFINISHED
from flowopt.errors import CompatibilityError, ConfigurationError
from studies.__main__ import main
from studies.basins import maps
from studies.basins import run as run_module
from studies.basins.author import RECORDS
from studies.basins.config import PRESETS, Config
from studies.basins.methods import MEANINGS, METHODS, method
from studies.basins.parts.portraits import names
from studies.basins.parts.table import (
    joined,
    records,
    section,
    standard_errors,
    units,
)
from studies.basins.statistics import statistics, trap_violations

EXPECTED = json.loads(
    Path(run_module.__file__).with_name("expected.json").read_text(encoding="utf-8")
)
SMOKE = PRESETS["smoke"]
TWO = maps.problem("poly_two")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What the command printed, and its result folder."""
    out = tmp_path_factory.mktemp("results")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["basins", "--preset", "smoke", "--out", str(out)]) == 0
    (folder,) = (out / "basins").iterdir()
    return printed.getvalue(), folder


@pytest.fixture(scope="module")
def arrays(smoke):
    return xr.load_dataset(smoke[1] / "arrays.nc", engine="h5netcdf")


def test_every_number_of_the_smoke_maps_is_the_expected_one(arrays):
    assert EXPECTED["preset"] == "smoke"
    for name, entry in EXPECTED["numbers"].items():
        for label, value in entry["values"].items():
            found = getattr(statistics(arrays, "poly_two", label, SMOKE), name)
            assert found == pytest.approx(value, abs=entry["tolerance"]), (name, label)


def test_the_maps_show_the_methods_asked_for_and_their_flows(arrays):
    asked = ["gradient_flow", *SMOKE.methods, "awb_ode", "adam_ode"]
    assert arrays.map_method.values.tolist() == names(SMOKE) == asked


def test_every_cell_of_the_smoke_table_is_within_four_standard_errors(arrays):
    cells = {(r.method, p) for r in records(SMOKE) for p in r.points}
    assert arrays.sizes["table_cell"] == len(cells) + 2 * len(records(SMOKE))
    assert float(np.abs(arrays.table_errors).max()) < 4.0


def test_the_report_says_how_many_cells_differ_and_is_printed(smoke):
    report = (smoke[1] / "report.md").read_text(encoding="utf-8")
    assert report in smoke[0]
    assert "0 of 66 cells differ" in report


def test_the_report_explains_the_methods_in_its_tables_and_no_others(smoke):
    report = (smoke[1] / "report.md").read_text(encoding="utf-8")
    explained = {line[2:].partition(":")[0] for line in report.splitlines() if line[:2] == "- "}
    used = {method.partition("@")[0] for method in [*SMOKE.network_methods, *names(SMOKE)]}
    assert used <= explained and "lc_momentum" not in explained
    assert list(MEANINGS) == list(METHODS)


def test_figures_and_manifest_are_kept(smoke):
    for name in ("maps_poly_two", "networks"):
        assert (smoke[1] / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (smoke[1] / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    manifest = json.loads((smoke[1] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["digest"] == smoke[1].name


def test_a_run_that_was_killed_computes_only_what_is_missing(smoke, monkeypatch):
    units = smoke[1] / "units"
    (lost,) = units.glob("map-poly-two-gd-*.nc")
    before = xr.load_dataset(lost, engine="h5netcdf").load()
    lost.unlink()
    computed = []
    ends = maps.ends
    monkeypatch.setattr(
        "studies.basins.parts.portraits.ends",
        lambda chosen, *rest, **more: computed.append(chosen.name) or ends(chosen, *rest, **more),
    )
    monkeypatch.setattr("studies.basins.parts.table.ends", None)
    run_module.run(SMOKE, out=smoke[1].parents[1])
    assert set(computed) == {"gd@0.1"}
    xr.testing.assert_identical(before, xr.load_dataset(lost, engine="h5netcdf"))


def test_any_method_of_the_registry_is_mapped_on_any_problem(tmp_path):
    command = "basins --problem rosenbrock --methods heavy_ball:BAOAB@0.02+lyapunov --set pixels=20"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*command.split(), "near=2", "--out", str(tmp_path)]) == 0
    assert "heavy_ball:BAOAB@0.02+lyapunov" in printed.getvalue()
    assert "maps_rosenbrock.png" in printed.getvalue()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_study_finds_a_minimum_from_nearby(name):
    start = torch.tensor([[0.05, -0.95], [-1.9, 0.9]], dtype=torch.float64)
    labels = maps.ends(method(f"{name}@0.01"), TWO, start).label.values
    points = maps.landmarks(TWO).points[labels.tolist()]
    assert points.tolist() == [[0.0, -1.0], [-2.0, 1.0]]


def test_adam_and_torchs_differ_by_less_than_their_constants():
    start = maps.grid(-3, 3, 24)
    ours, torchs = method("adam@0.1"), fo.classic.adam(lr=0.1)
    theirs = replace(ours, flow=torchs.flow, scheme=torchs.scheme)
    labels = [maps.ends(chosen, TWO, start).label for chosen in (ours, theirs)]
    assert (labels[0] != labels[1]).mean() < 0.01


def test_gradient_descent_costs_a_gradient_per_step_and_one_at_the_start():
    found = maps.ends(method("gd@0.01"), TWO, maps.grid(-1, 1, 4))
    np.testing.assert_array_equal(found.cost, 3 * (found.steps + 1))


def test_what_an_energy_rejects_costs_a_loss():
    chosen = method("gd_em@0.1")
    start = torch.tensor([[-2.9, -2.9]], dtype=torch.float64)
    solution = fo.integrate(chosen.flow, chosen.scheme, TWO, start, control=chosen.control, steps=1)
    rejected = int(solution.counts["rejected"])
    assert rejected > 0
    assert float(solution.cost) == 3 * 2 + rejected


def test_no_start_of_a_grid_lies_on_a_symmetry_axis():
    w, b = maps.grid(-3, 3, 240).unbind(-1)
    for line in (w, b, w + b, w - b, w + 2 * b, 2 * w + b):
        assert float(line.abs().min()) > 1e-4


def test_starts_in_a_disc_fill_it_evenly():
    centre = torch.tensor([1.0, -2.0], dtype=torch.float64)
    distance = torch.linalg.vector_norm(maps.ball(centre, 0.3, 4000, 0) - centre, dim=-1)
    assert float(distance.max()) <= 0.3
    # A quarter lies within half the radius; standard error √(¼·¾/4000).
    assert float((distance < 0.15).double().mean()) == pytest.approx(0.25, abs=5 * 0.0069)


def test_a_plane_of_a_larger_problem_varies_two_parameters():
    placed = maps.on_plane(torch.tensor([[1.0, 2.0]]), 4, (3, 1))
    assert placed.tolist() == [[0.0, 2.0, 0.0, 1.0]]


def test_an_end_on_a_line_of_minima_belongs_to_that_line():
    known = maps.problem("one_datum")
    start = torch.tensor([[1.7, 1.1], [-2.0, 0.4]], dtype=torch.float64)
    labels = maps.ends(method("gradient_flow"), known, start).label.values
    assert [maps.landmarks(known).names[n] for n in labels] == ["curve 2", "curve 0"]


def test_landmarks_have_minima_first_and_know_the_lowest_saddle():
    known = maps.landmarks(TWO)
    assert known.kinds[:4] == ("minimum",) * 4 and "minimum" not in known.kinds[4:]
    assert known.lowest_saddle == 0.25


def test_traps_count_the_starts_below_the_lowest_saddle_that_have_settled_elsewhere():
    known = maps.landmarks(TWO)
    flow = torch.tensor([0, 0, 1, 1, 2, 2])
    labels = torch.tensor([0, 1, UNFINISHED, LOST, 2, 3])
    loss = torch.tensor([0.1, 0.2, 0.2, 0.24, 0.1, 0.3])
    # Of the five below 1/4 one is unfinished; the second and fourth of the others left.
    assert trap_violations(labels, flow, loss, known) == 50.0
    assert math.isnan(trap_violations(labels, flow, loss + 1.0, known))


def test_the_difference_of_equal_shares_is_no_error_and_that_of_others_is_known():
    assert standard_errors(0.0, 100, 0.0, 100) == standard_errors(20.0, 100, 20.0, 50) == 0.0
    assert standard_errors(60.0, 100, 40.0, 100) == pytest.approx(0.2 / math.sqrt(0.25 / 50))


def test_a_rise_of_the_energy_is_counted_and_a_fall_is_not():
    start = torch.tensor([[0.0, 0.9]], dtype=torch.float64)
    uphill = fo.Flow.from_text("A: dtheta/dt = g\nenergy loss: L")
    base = method("gd@0.01")
    assert float(maps.rises(base, TWO, start).rises) == 0.0
    found = maps.rises(replace(base, flow=uphill), TWO, start)
    assert float(found.rises) > 0.1 and float(found.above_start) == 1.0


def test_the_records_name_known_points_and_sum_to_at_most_everything():
    for record in RECORDS:
        known = maps.landmarks(maps.problem(record.problem)).points.tolist()
        assert all([float(x) for x in point] in known for point in record.points)
        assert len(record.shares) == len(record.points)
        every = [*record.shares, record.lost, record.unfinished, record.elsewhere]
        assert np.nansum(every) <= 100.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set parts=mpas", "did you mean 'maps'"),
        ("--set parts=", "parts came empty"),
        ("--set methods=gd,awb,gd", "method 'gd' came twice, expected once"),
        ("--set problems=poly_two,poly_two", "problem 'poly_two' came twice"),
        ("--set networks= parts=networks", "networks came empty"),
        ("--set pixels=3", "at least 20"),
        ("--set axes=1,1", "two different parameters"),
        ("--device cuda", "runs on cpu"),
        ("--problem rosenbrok", "did you mean 'rosenbrock'"),
        ("--problem double_well", "a map needs two"),
        ("--methods", "at least one after --methods"),
        ("--problem poly_two --methods agd", "did you mean 'gd'? known are"),
        ("--set methods=lc_adam_restartd", "did you mean 'lc_adam_restarted'? known are"),
        ("--set methods=lc_adam:rk4", "unknown flow 'lc_adam', did you mean 'adam'?"),
        ("--problem poly_two --methods adam:TMVA+lyapunv", "did you mean 'lyapunov'"),
        ("--problem poly_two --methods gd@-1", "positive number"),
    ],
)
def test_wrong_use_is_answered_with_what_to_do(words, message, tmp_path, capsys):
    assert main(["basins", *words.split(), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_control_that_does_not_fit_is_refused():
    with pytest.raises(CompatibilityError, match="estimates no error"):
        method("gradient_flow:A@0.1+error")
    with pytest.raises(ConfigurationError):
        Config(starts=0)


def test_labels_of_ends_elsewhere_stay_negative():
    flat = maps.problem("rat_two")
    far = torch.tensor([[400.0, 600.0]], dtype=torch.float64)
    assert maps.ends(method("gd@0.1"), flat, far).label.values.tolist() == [ELSEWHERE]


@pytest.mark.parametrize(
    "record",
    [r for r in RECORDS if r.loss is not None],
    ids=lambda record: f"{record.problem} {record.method}",
)
def test_a_cross_entropy_as_the_author_has_it_differs_only_where_an_output_rounds(record):
    landscape = maps.problem(record.problem)
    start = maps.uniform(-2.0, 2.0, 100, 0)
    torch.testing.assert_close(record.loss(start), landscape.loss(start), rtol=1e-12, atol=0.0)


def test_an_output_that_rounds_to_its_target_makes_the_authors_loss_no_number():
    (record,) = [r for r in RECORDS if r.loss is not None and r.problem == "rat_two"]
    minimum = torch.tensor([record.points[0]], dtype=torch.float64)
    assert record.loss(minimum).isnan()
    assert maps.problem("rat_two").loss(minimum).abs() < 1e-15


def test_the_rule_without_a_guard_loses_as_many_starts_as_in_the_record():
    (record,) = [r for r in RECORDS if (r.problem, r.method) == ("poly_five", "er@0.1")]
    start = maps.uniform(-record.half_width, record.half_width, 2000, 0)
    chosen, landscape = method(record.method), maps.problem(record.problem)
    # Who is lost is so at the first step.
    status = maps.moved(chosen, landscape, start, most_steps=5).status
    lost = 100.0 * float((status == fo.Status.DIVERGED).double().mean())
    assert abs(standard_errors(lost, 2000, record.lost, record.starts)) < 5.0


def test_runs_made_otherwise_stand_between_the_authors_and_ours():
    config = replace(SMOKE, records=("cloche",), starts=200)
    found = {name: compute() for name, compute in units(config).items()}
    arrays = joined(found, config)
    assert arrays.change_words.values.tolist() == ["the author's", "ours", "usual loss"]
    assert arrays.change_lost.values[0] == 0.18 and arrays.change_lost.values[2] == 0.0
    assert "usual loss" in section(arrays, config)


def test_true_flows_end_where_their_steps_leave_no_smaller_gradient():
    flow, usual = method("gradient_flow"), method("gd@0.1")
    assert maps.to_rest(flow, TWO) == flow
    steep = maps.problem("poly_five")
    assert maps.to_rest(usual, steep) == usual
    assert maps.to_rest(flow, steep).tolerance == pytest.approx(2e-8 * 5362, rel=1e-3)
    # A flow that came too near a steep minimum to move on would never end.
    near = torch.tensor([[0.01, 3.0]], dtype=torch.float64)
    assert maps.moved(maps.to_rest(flow, steep), steep, near).status == fo.Status.GRADIENT_SMALL


def test_a_true_flow_at_the_end_of_its_time_has_not_diverged():
    steep = maps.problem("poly_five")
    # At the end of so short a time its gradient is still far above 1000.
    flow = replace(method("gradient_flow"), duration=1e-12)
    start = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    assert steep.gradient(start).norm() > 1e6
    assert maps.ends(flow, steep, start).label.values.tolist() == [UNFINISHED]
