import hashlib
import io
import os
import pickle
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowopt.errors import DataError
from studies.common import data
from studies.common.data import cifar_images, files
from studies.common.data.cifar_images import FEATURES, read_batch
from studies.common.data.files import FOLDER_VARIABLE

needs_data = pytest.mark.skipif(
    not os.environ.get(FOLDER_VARIABLE), reason=f"{FOLDER_VARIABLE} is not set"
)
IMAGES = np.arange(2 * FEATURES).reshape(2, FEATURES).astype(np.uint8)


def python2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """A dict of an array and a list as Python 2 and its numpy wrote them, protocol 2."""
    rows, content = len(images), images.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    none = b"J\xff\xff\xff\xff"
    kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + none + none + b"K\x00tb"
    shape = b"K" + bytes([rows]) + b"M" + FEATURES.to_bytes(2, "little") + b"\x86"
    state = b"(K\x01" + shape + kind + b"\x89T" + len(content).to_bytes(4, "little") + content
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return b"\x80\x02}(U\x04data" + array + state + b"tbU\x06labels](" + numbers + b"eu."


def written(path, content: object):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=4))
    return path


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """A folder like CIFAR-10's with two images a file, and its checksums."""
    folder = tmp_path / "data"
    (folder / "cifar10").mkdir(parents=True)
    names = cifar_images.SOURCE.checksums
    for label, name in enumerate(names):
        written(folder / "cifar10" / name, python2_pickle(IMAGES, [label, 9]))
    _trust(monkeypatch, folder / "cifar10")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder / "cifar10"


def _trust(monkeypatch, folder, **changes):
    checksums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }
    source = replace(cifar_images.SOURCE, checksums=checksums, **changes)
    monkeypatch.setattr(cifar_images, "SOURCE", source)


def test_the_five_training_files_are_joined_in_order(small_cifar):
    cifar10 = data.load("cifar10")
    assert cifar10.train_labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert cifar10.test_labels.tolist() == [5, 9]
    expected = torch.from_numpy(IMAGES.astype(np.float32)) / 255
    torch.testing.assert_close(cifar10.test_inputs, expected, rtol=0, atol=1e-7)


def test_a_changed_file_is_refused_before_it_is_read(small_cifar):
    written(small_cifar / "data_batch_2", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match="data_batch_2 has the sha256 .* of CIFAR-10's official"):
        data.load("cifar10")


def test_an_archive_is_fetched_once_and_unpacked_where_no_folder_is_named(
    small_cifar, tmp_path, monkeypatch
):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(small_cifar, arcname=cifar_images.SOURCE.archive_folder)
        extra = tarfile.TarInfo("../outside")
        file.addfile(extra, io.BytesIO())
    asked = []

    class Download:
        """Instead of the network."""

        def __call__(self, url, output_file, pooch):
            asked.append(url)
            shutil.copy(archive, output_file)

    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setattr(files.pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr("pooch.core.choose_downloader", lambda url, **_: Download())
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    _trust(monkeypatch, small_cifar, archive_checksum=checksum)
    for _ in range(2):
        assert data.load("cifar10").test_labels.tolist() == [5, 9]
    assert asked == [cifar_images.SOURCE.address]
    assert not list(tmp_path.rglob("outside"))


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.load, __import__])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_is_called(tmp_path, function):
    place = str(tmp_path / "made")
    path = written(tmp_path / "batch", {b"data": Runs(function, place)})
    with pytest.raises(DataError, match="can not be read .*it names"):
        read_batch(path)
    assert not (tmp_path / "made").exists()


def array_pickle(state: bytes) -> bytes:
    begun = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    return b"\x80\x02}C\x04data" + begun + state + b"s."


BYTES = b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1K\x00K\x01tR"
OBJECTS = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR"
HOSTILE = {
    "an array without content": b"",
    "bytes for an array of the shape": b"(K\x01J\x00\x00\x00\x7f\x85" + BYTES + b"\x89C\x02abtb",
    "expected unsigned bytes": b"(K\x01K\x01\x85" + OBJECTS + b"\x89](K\x00etb",
    "without a shape of whole numbers": b"(K\x01J\xff\xff\xff\xff\x85" + BYTES + b"\x89C\x00tb",
    "or no bytes": b"(K\x01K\x01\x85" + BYTES + b"\x89](K\x00etb",
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_an_array_that_its_own_bytes_do_not_fill_is_refused(tmp_path, reason):
    path = written(tmp_path / "batch", array_pickle(HOSTILE[reason]))
    with pytest.raises(DataError, match=reason):
        read_batch(path)


def test_what_stands_for_numpy_can_not_be_changed_by_a_pickle(tmp_path):
    changing = b"\x80\x02cnumpy\nndarray\nN}C\x05arrayK\x00s\x86b."
    with pytest.raises(DataError, match="can not be read"):
        read_batch(written(tmp_path / "batch", changing))
    whole = written(tmp_path / "whole", python2_pickle(IMAGES, [1, 2]))
    np.testing.assert_array_equal(read_batch(whole)[0], IMAGES)


@pytest.mark.parametrize("kept", [0, 1, 40, 200, 2 * FEATURES])
def test_a_pickle_that_breaks_off_is_refused(tmp_path, kept):
    with pytest.raises(DataError, match="can not be read"):
        read_batch(written(tmp_path / "batch", python2_pickle(IMAGES, [1, 2])[:kept]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "a list came, expected a dict"),
        ({b"labels": [1]}, "b'data' is missing"),
        ({b"data": IMAGES[:, :5], b"labels": [1, 2]}, r"an array of the shape \(2, 5\)"),
        ({b"data": IMAGES}, "b'labels' is missing"),
        ({b"data": IMAGES, b"labels": [1]}, "a list of length 1, expected a list of 2 whole"),
        ({b"data": IMAGES, b"labels": [1, "b"]}, "expected a list of 2 whole numbers"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_batch(written(tmp_path / "batch", content))


@needs_data
def test_cifar10_has_the_official_number_of_each_class_and_mean_colour():
    cifar10 = data.load("cifar10")
    assert cifar10.train_labels.bincount().tolist() == [5000] * 10
    assert cifar10.test_labels.bincount().tolist() == [1000] * 10
    means = cifar10.test_inputs.reshape(-1, 3, 1024).double().mean((0, 2))
    torch.testing.assert_close(
        means, torch.tensor([0.494214, 0.485131, 0.450409], dtype=torch.float64), rtol=0, atol=1e-6
    )
