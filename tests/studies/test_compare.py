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

from studies.__main__ import main
from studies.common.candidates import candidate
from studies.common.data import LOADERS, digits
from studies.compare import run as run_module
from studies.compare import training
from studies.compare.config import METHODS, PRESETS, TASKS, Config, planned
from studies.compare.report import HEADER, final
from studies.compare.run import run

EXPECTED = Path(run_module.__file__).with_name("expected.json")
TINY = Config(methods=("sgd",), seeds=1, epochs=0.2, points=2)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What the command printed, and its result folder."""
    out = tmp_path_factory.mktemp("results")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["compare", "--preset", "smoke", "--out", str(out)]) == 0
    (folder,) = (out / "compare").iterdir()
    return printed.getvalue(), folder


@pytest.fixture(scope="module")
def arrays(smoke):
    return xr.load_dataset(smoke[1] / "arrays.nc", engine="h5netcdf")


def _train(specification, config=TINY, seed=0):
    entry = candidate(specification)
    return training.train(entry, planned(config, [entry]), digits(), seed, lambda _: None)


def _flow_file(tmp_path, text):
    path = tmp_path / "my_flow.txt"
    path.write_text(text)
    return str(path)


def test_every_task_has_its_data_set():
    assert set(TASKS) <= set(LOADERS)


def test_the_smoke_preset_has_six_methods_and_two_seeds():
    assert len(PRESETS["smoke"].methods) >= 6
    assert PRESETS["smoke"].seeds == 2


@pytest.mark.parametrize("quantity", ["training_loss", "test_accuracy"])
@pytest.mark.parametrize("optimizer", METHODS)
def test_the_smoke_run_ends_where_it_is_expected(arrays, optimizer, quantity):
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    mean = float(final(arrays[quantity]).sel(optimizer=optimizer).mean())
    assert expected["preset"] == "smoke"
    entry = expected["numbers"][quantity]
    assert mean == pytest.approx(entry["values"][optimizer], abs=entry["tolerance"])


def test_the_report_has_a_row_with_every_column_for_each_method(smoke):
    table = [line for line in smoke[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == list(HEADER)
    assert [row[0] for row in cells[2:]] == list(METHODS)
    assert all(all(row) and row[-1] == "2 finished" for row in cells[2:])


def test_the_printed_table_is_aligned(smoke):
    assert len({len(line) for line in smoke[0].splitlines() if line.startswith("|")}) == 1


def test_the_report_is_printed_and_kept(smoke):
    printed, folder = smoke
    assert (folder / "report.md").read_text(encoding="utf-8") in printed


def test_the_figure_is_kept_as_png_and_pdf(smoke):
    assert (smoke[1] / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (smoke[1] / "comparison.pdf").read_bytes().startswith(b"%PDF")


def test_the_manifest_says_how_to_make_the_result_again(smoke):
    manifest = json.loads((smoke[1] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["digest"] == smoke[1].name
    assert manifest["config"]["methods"] == list(METHODS)
    assert manifest["counts"]["steps"] == 2 * len(METHODS) * 44
    assert {"commit", "versions", "device", "seconds"} <= set(manifest)


def test_the_arrays_are_labelled_and_complete(arrays):
    assert dict(arrays.sizes) == {"optimizer": len(METHODS), "seed": 2, "point": 11}
    for name in training.CURVES:
        # Adam's energy is 0/0 at the start.
        first = 1 if name == "energy" else 0
        assert np.isfinite(arrays[name].isel(point=slice(first, None))).all()
        assert arrays[name].attrs["long_name"]


def test_every_method_has_the_same_cost(arrays):
    assert set(arrays.cost.max("point").values.flat) == {2 * 22 * 3}


def test_every_method_starts_at_the_same_loss(arrays):
    start = arrays.training_loss.isel(point=0)
    assert (start == start.isel(optimizer=0)).all()


def test_a_step_along_one_minibatch_lowers_the_energy_of_its_loss(arrays):
    assert arrays.energy_increases.sel(optimizer="sgd").max() == 0.0


def test_a_step_of_four_gradients_is_taken_a_quarter_as_often():
    config = replace(TINY, epochs=2)
    assert int(_train("heavy_ball:rk4@0.1", config).steps) == 11
    assert int(_train("heavy_ball:OBA@0.1", config).steps) == 44


def test_a_flow_uphill_raises_its_energy_in_every_step(tmp_path):
    path = _flow_file(tmp_path, "A: dtheta/dt = g\nenergy loss: L")
    assert float(_train(path, replace(TINY, epochs=0.5)).energy_increases) == 1.0


def test_a_flow_without_energy_has_no_share_of_rises(tmp_path):
    path = _flow_file(tmp_path, "A: dtheta/dt = -g")
    assert math.isnan(float(_train(path).energy_increases))


def test_the_users_text_trains_as_the_built_in_flow_does(tmp_path):
    path = _flow_file(
        tmp_path, "O: dp/dt = -friction*p\nB: dp/dt = -g\nA: dtheta/dt = p\nparameter friction = 1"
    )
    mine, built_in = _train(f"{path}@0.3"), _train("heavy_ball:OBA@0.3")
    xr.testing.assert_equal(mine.training_loss, built_in.training_loss)


def test_the_energy_at_a_point_has_the_loss_over_all_rows():
    unit = _train("sgd")
    np.testing.assert_allclose(unit.energy, unit.training_loss, rtol=1e-6)


def test_looking_takes_no_time(monkeypatch):
    clock = [0.0]
    curves = training.Observer._curves

    def slow(*arguments):
        clock[0] += 1.0
        return curves(*arguments)

    monkeypatch.setattr(training.Observer, "_curves", slow)
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    unit = _train("sgd")
    assert (float(unit.seconds), float(unit.seconds_observing)) == (0.0, 3.0)


def test_a_run_that_diverges_is_a_row_of_the_table(tmp_path, capsys):
    path = _flow_file(tmp_path, "A: dtheta/dt = 100000*theta - g")
    words = ["--methods", f"{path}@1", "sgd", "--seeds", "2", "--epochs", "2", "--set", "points=2"]
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "2 diverged" in rows[2]
    assert "2 finished" in rows[3]


@pytest.mark.filterwarnings("error")
def test_a_figure_of_runs_that_all_diverge_is_drawn(tmp_path):
    path = _flow_file(tmp_path, "A: dtheta/dt = 100000*theta - g")
    words = ["--methods", f"{path}@1", "--epochs", "2", "--set", "points=2"]
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").rglob("comparison.png"))


def test_a_seed_decides_about_everything():
    first, second = _train("langevin:BAOAB"), _train("langevin:BAOAB")
    other = _train("langevin:BAOAB", seed=1)
    xr.testing.assert_equal(first.training_loss, second.training_loss)
    assert not np.isclose(first.training_loss, other.training_loss).any()


def test_the_users_random_numbers_are_left_alone():
    before = torch.random.get_rng_state()
    _train("langevin:BAOAB")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_number_of_threads_is_left_alone(tmp_path):
    before = torch.get_num_threads()
    run(TINY, out=tmp_path)
    assert torch.get_num_threads() == before


def test_a_file_with_other_content_has_another_folder(tmp_path):
    path = _flow_file(tmp_path, "A: dtheta/dt = -g")
    first = run(replace(TINY, methods=(path,)), out=tmp_path).path
    _flow_file(tmp_path, "A: dtheta/dt = -2*g")
    assert run(replace(TINY, methods=(path,)), out=tmp_path).path != first


def test_ctrl_c_within_a_run_ends_it():
    def pressed(steps):
        raise KeyboardInterrupt

    entry = candidate("sgd")
    with pytest.raises(KeyboardInterrupt):
        training.train(entry, planned(TINY, [entry]), digits(), 0, pressed)


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    words = ["compare", "--methods", "sgd", "adam", "rmsprop", "--seeds", "1", "--epochs", "0.2"]
    words += ["--set", "points=2", "--out", str(tmp_path)]
    trained = []

    def interrupted(entry, *arguments):
        if len(trained) == 1:
            raise KeyboardInterrupt
        return counted(entry, *arguments)

    def counted(entry, *arguments):
        trained.append(entry.label)
        return training.train(entry, *arguments)

    monkeypatch.setattr(run_module, "train", interrupted)
    assert main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    (folder,) = (tmp_path / "compare").iterdir()
    kept = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kept == {".nc", ".seal"}
    monkeypatch.setattr(run_module, "train", counted)
    assert main(words) == 0
    assert trained == ["sgd", "adam", "rmsprop"]


@pytest.mark.slow
def test_runs_side_by_side_give_what_they_give_one_by_one(tmp_path):
    config = replace(TINY, methods=("sgd", "langevin:BAOAB"), seeds=2)
    together = run(config, out=tmp_path / "together", jobs=2).read_dataset("arrays.nc")
    apart = run(config, out=tmp_path / "apart").read_dataset("arrays.nc")
    for name in training.CURVES:
        xr.testing.assert_equal(together[name], apart[name])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods"], "no method came"),
        (["--methods", "adm"], "did you mean 'adam'"),
        (["--methods", "adam", "adam"], "'adam' came twice"),
        (["--methods", "heavy_ball:BAB"], "leaves out"),
        (["--methods", "sgd@-1"], "expected a positive number"),
        (["--flow", "missing.txt"], "missing.txt can not be read"),
        (["--data", "minst"], "did you mean 'mnist'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--preset", "quik"], "did you mean 'quick'"),
        (["--set", "sedes=3"], "did you mean 'seeds'"),
        (["--set", "batch=5000"], "1437 training rows"),
        (["--seeds", "0"], "expected at least 1"),
        (["--seeds", "two"], "invalid int value"),
        (["--epochs", "-1"], "expected a positive number"),
        (["--epochs", "nan"], "expected a positive number"),
        (["--epochs", "0.001"], "pay for no step"),
        (["--jobs", "0"], "expected at least 1"),
        (["--sedes", "1"], "unrecognized arguments"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(tmp_path, capsys, words, message):
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("flowopt: ")
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not (tmp_path / "out").exists()


def test_a_flow_without_a_gradient_is_refused(tmp_path, capsys):
    path = _flow_file(tmp_path, "A: dtheta/dt = -theta")
    assert main(["compare", "--methods", path, "--out", str(tmp_path / "out")]) == 2
    assert "has no gradient g" in capsys.readouterr().err


def test_flow_adds_a_file_to_the_methods(tmp_path, capsys):
    path = _flow_file(tmp_path, "A: dtheta/dt = -g")
    words = ["--methods", "sgd", "--flow", f"{path}@0.2", "--epochs", "0.2", "--seeds", "1"]
    assert main(["compare", *words, "--set", "points=2", "--out", str(tmp_path)]) == 0
    assert "| my_flow.txt:A@0.2 |" in capsys.readouterr().out
