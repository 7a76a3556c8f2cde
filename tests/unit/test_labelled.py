"""Solutions as labelled arrays."""

import sys

import pytest
import torch
import xarray

import flowopt as fo
from tests.reference.training import small_problem

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
STARTS = torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.2, -1.1]], dtype=torch.float64)


def run(start=STARTS, record=None, **settings):
    settings = {"step_size": 0.1, "steps": 6, "seed": 5, **settings}
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    return fo.integrate(
        flow, fo.Splitting("BAOAB"), QUADRATIC, start, record=record or {}, **settings
    )


def test_records_have_names_dimensions_and_times():
    solution = run(record={"position": 2, "loss": 2, "speed": (2, lambda s, e: s.time)})
    arrays = solution.to_xarray()
    assert arrays.position.dims == ("time", "batch", "dim")
    assert arrays.loss.dims == arrays.speed.dims == ("time", "batch")
    assert arrays.time.values == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert (arrays.position.values == solution.records["position"].numpy()).all()
    assert (arrays.final_position.values == solution.position.numpy()).all()
    assert arrays.final_position.dims == ("batch", "dim")
    assert arrays.gradients.values.tolist() == [7, 7, 7]


def test_records_at_other_steps_have_a_time_of_their_own():
    arrays = run(record={"position": 2, "loss": 3}).to_xarray()
    assert arrays.position.dims == ("time_position", "batch", "dim")
    assert arrays.loss.dims == ("time_loss", "batch")
    assert arrays.time_loss.values == pytest.approx([0.0, 0.3, 0.6])


def test_trajectories_at_different_times_keep_them():
    step_size = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    arrays = run(record={"loss": 3}, step_size=step_size).to_xarray()
    assert arrays.moment.dims == ("time", "batch")
    assert arrays.moment.isel(time=-1).values == pytest.approx([0.6, 1.2, 1.8])


def test_a_single_trajectory_has_no_batch_and_two_axes_have_two():
    assert run(STARTS[0], {"loss": 1}).to_xarray().loss.dims == ("time",)
    grid = run(STARTS.expand(4, 3, 2), {"position": 1}).to_xarray()
    assert grid.position.dims == ("time", "batch", "batch_1", "dim")


def test_the_parameters_of_a_network_keep_their_names():
    problem = small_problem()
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        fo.Euler(),
        problem,
        problem.start(2),
        step_size=0.1,
        steps=2,
        record={"position": 1},
    )
    arrays = solution.to_xarray()
    assert arrays.position.sizes == {"time": 3, "batch": 2, "dim": problem.dim}
    assert arrays["final_0.weight"].shape == (2, 8, 5)


def test_what_was_run_is_in_the_attributes_and_survives_a_file(tmp_path):
    arrays = run(record={"loss": 1}).to_xarray()
    arrays.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    again = xarray.load_dataset(tmp_path / "run.nc", engine="h5netcdf")
    xarray.testing.assert_identical(again, arrays)
    assert again.attrs["seed"] == 5
    assert again.attrs["scheme"] == "Splitting('BAOAB')"
    assert again.attrs["flow"].startswith("<flow langevin")
    assert again.attrs["control"] == "Constant(0.1)"
    assert again.attrs["problem"] == "quadratic"
    assert again.attrs["engine"].startswith("eager torch")
    assert "took the most steps" in again.status.attrs["meaning"]


def test_without_xarray_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(fo.ConfigurationError, match=r"pip install flowopt\[studies\]"):
        run().to_xarray()


def test_a_state_that_was_on_disk_continues_as_if_nothing_had_been(tmp_path):
    whole, half = run(), run(steps=3)
    torch.save(half.state, tmp_path / "state.pt")
    rest = run(torch.load(tmp_path / "state.pt", weights_only=True), steps=3)
    assert torch.equal(rest.position, whole.position)
    assert torch.equal(rest.state.time, whole.state.time)
