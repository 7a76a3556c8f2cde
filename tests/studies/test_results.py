import json
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr

from flowopt.errors import ConfigurationError, DataError
from studies.common import results
from studies.common.results import ResultFolder, digest


@dataclass(frozen=True)
class Config:
    methods: tuple[str, ...] = ("adam", "sgd")
    step_size: float = 0.1
    width: int = 64
    budget: float | None = None


LOSSES = xr.Dataset(
    {"loss": (("step", "method"), np.array([[1.0, np.nan], [0.5, np.inf]]))},
    coords={"method": ["adam", "θ-flow"]},
    attrs={"unit": "nats"},
)


@pytest.fixture
def folder(tmp_path):
    return ResultFolder("toy", Config(), out=tmp_path)


def test_a_digest_is_twelve_digits_that_never_change():
    assert digest(Config()) == "708d8f23d687"


def test_equal_configurations_have_equal_digests():
    assert Config(step_size=1) == Config(step_size=1.0)
    assert digest(Config(step_size=1)) == digest(Config(step_size=1.0))


@pytest.mark.parametrize(
    "change",
    [{"methods": ("sgd", "adam")}, {"step_size": 0.1 + 1e-16}, {"budget": 0.0}, {"width": 65}],
)
def test_another_configuration_has_another_digest(change):
    assert digest(replace(Config(), **change)) != digest(Config())


def test_a_configuration_that_json_can_not_say_is_refused():
    with pytest.raises(ConfigurationError, match="has no digest"):
        digest(Config(budget=object()))


def test_results_lie_under_study_and_digest(tmp_path):
    folder = ResultFolder("toy", Config(), out=tmp_path)
    assert folder.path == tmp_path / "toy" / digest(Config())


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="can not be written"):
        ResultFolder("toy", Config(), out=tmp_path / "file")


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", ".hidden", "", "a b.txt"])
def test_a_name_that_is_no_plain_name_is_refused(folder, name):
    with pytest.raises(ConfigurationError, match="can not name a file"):
        folder.write_text(name, "text")


def test_text_is_written_in_utf8(folder):
    path = folder.write_text("report.md", "dθ/dt = −∇L\n")
    assert path.read_bytes() == "dθ/dt = −∇L\n".encode()


def test_json_comes_back_with_tuples_as_lists(folder):
    folder.write_json("numbers.json", {"α": (1, 2.5, None, True), "n": np.int64(3)})
    assert folder.read_json("numbers.json") == {"α": [1, 2.5, None, True], "n": 3}


def test_numbers_that_are_not_finite_stay_strict_json(folder):
    path = folder.write_json("n.json", [np.nan, np.float32("inf"), -np.inf])

    def refuse(constant):
        raise AssertionError(constant)

    entries = json.loads(path.read_text(), parse_constant=refuse)
    assert entries == ["NaN", "Infinity", "-Infinity"]


def test_labelled_arrays_come_back_identical(folder):
    folder.write_dataset("arrays.nc", LOSSES)
    xr.testing.assert_identical(folder.read_dataset("arrays.nc"), LOSSES)


@pytest.mark.parametrize("read", [ResultFolder.read_json, ResultFolder.read_dataset])
def test_reading_what_was_never_written_is_refused(folder, read):
    with pytest.raises(DataError, match="does not exist: run the study first"):
        read(folder, "none")


@pytest.mark.parametrize("read", [ResultFolder.read_json, ResultFolder.read_dataset])
@pytest.mark.parametrize("content", [b"", b"\xff\x00damaged"])
def test_reading_a_damaged_file_is_refused(folder, read, content):
    (folder.path / "file").write_bytes(content)
    with pytest.raises(DataError, match="delete it and run again"):
        read(folder, "file")


def test_a_figure_is_saved_as_png_and_pdf(folder):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    png, pdf = folder.save_figure(figure, "losses")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    folder, monkeypatch, interruption
):
    path = folder.write_text("report.md", "old")

    def interrupted(file_descriptor):
        raise interruption

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(interruption):
        folder.write_text("report.md", "new")
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in folder.path.iterdir()) == ["report.md", "units"]


def test_who_reads_a_file_while_it_is_written_anew_sees_the_old_one_whole(folder):
    with folder.write_text("report.md", "old").open() as reader:
        folder.write_text("report.md", "new")
        assert reader.read() == "old"


def test_a_unit_that_was_never_finished_is_none(folder):
    assert folder.unit("adam, seed 0") is None


def test_a_later_run_finds_a_finished_unit(folder, tmp_path):
    folder.finish_unit("adam, seed 0", LOSSES)
    later = ResultFolder("toy", Config(), out=tmp_path)
    xr.testing.assert_identical(later.unit("adam, seed 0"), LOSSES)


def test_units_whose_names_differ_in_one_sign_are_kept_apart(folder):
    folder.finish_unit("langevin:BAOAB", LOSSES)
    folder.finish_unit("langevin/BAOAB", LOSSES * 2)
    xr.testing.assert_equal(folder.unit("langevin:BAOAB"), LOSSES)


def _unit_file(folder, ending):
    (path,) = (folder.path / "units").glob(f"*{ending}")
    return path


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path):
    path.write_bytes(b"")


def _flip_one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_empty, _cut, _flip_one_bit])
def test_a_damaged_unit_is_not_trusted(folder, damage):
    folder.finish_unit("adam", LOSSES)
    damage(_unit_file(folder, ".nc"))
    assert folder.unit("adam") is None


def test_a_unit_is_finished_only_when_its_seal_is_written(folder):
    folder.finish_unit("adam", LOSSES)
    _unit_file(folder, ".seal").unlink()
    assert folder.unit("adam") is None


def test_a_unit_computed_by_other_code_is_not_trusted(folder, tmp_path, monkeypatch):
    folder.finish_unit("adam", LOSSES)
    monkeypatch.setattr(results, "_code_digest", lambda: "other code")
    assert ResultFolder("toy", Config(), out=tmp_path).unit("adam") is None


def test_a_unit_that_is_computed_anew_replaces_the_damaged_one(folder):
    folder.finish_unit("adam", LOSSES)
    _cut(_unit_file(folder, ".nc"))
    folder.finish_unit("adam", LOSSES)
    xr.testing.assert_identical(folder.unit("adam"), LOSSES)
