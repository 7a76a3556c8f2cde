import hashlib
import os
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from flowopt.errors import DataError
from studies.common import data
from studies.common.data import files, mnist_images
from studies.common.data.files import FOLDER_VARIABLE
from tests.studies.idx_files import write_idx

needs_data = pytest.mark.skipif(
    not os.environ.get(FOLDER_VARIABLE), reason=f"{FOLDER_VARIABLE} is not set"
)

# Of the official distribution: images of each digit in the training and the test part.
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder like MNIST's with 5 training and 3 test images, and its checksums."""
    folder = tmp_path / "data"
    (folder / "mnist").mkdir(parents=True)
    contents = {
        "train-images-idx3-ubyte.gz": np.full((5, 2, 3), 255),
        "train-labels-idx1-ubyte.gz": np.arange(5),
        "t10k-images-idx3-ubyte.gz": np.full((3, 2, 3), 51),
        "t10k-labels-idx1-ubyte.gz": np.arange(3),
    }
    paths = [write_idx(folder / "mnist" / name, entries) for name, entries in contents.items()]
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    monkeypatch.setattr(mnist_images, "SOURCE", replace(mnist_images.SOURCE, checksums=checksums))
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def mirror(small_mnist, tmp_path, monkeypatch):
    """A mirror of the small MNIST on this machine, and an empty cache."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(small_mnist / "mnist"))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(files.pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(mnist_images, "SOURCE", replace(mnist_images.SOURCE, address=address))
    yield small_mnist / "mnist"
    server.shutdown()
    server.server_close()
    thread.join()


def test_digits_have_1437_training_and_360_test_rows_of_64_features():
    digits = data.load("digits")
    assert digits.train_inputs.shape == (1437, 64)
    assert digits.test_inputs.shape == (360, 64)


def test_digits_are_float32_between_0_and_1_and_reach_both():
    inputs = data.load("digits").train_inputs
    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_every_digit_has_the_same_share_in_both_parts():
    digits = data.load("digits")
    train = digits.train_labels.bincount()
    test = digits.test_labels.bincount()
    assert ((train + test) * 360 / 1797 - test).abs().max() < 1


def test_digits_are_split_the_same_way_each_time():
    torch.testing.assert_close(
        data.load("digits").test_inputs, data.load("digits").test_inputs, rtol=0, atol=0
    )


def test_an_unknown_data_set_is_refused_with_the_nearest_name():
    with pytest.raises(
        DataError, match=r"'minst', did you mean 'mnist'\? known are cifar10, digits,"
    ):
        data.load("minst")


def test_images_are_scaled_by_255(small_mnist):
    mnist = data.load("mnist")
    assert mnist.train_inputs.unique().tolist() == [1.0]
    torch.testing.assert_close(mnist.test_inputs, torch.full((3, 6), 0.2))


def test_a_missing_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(DataError, match="FLOWOPT_DATA names .*none, expected a folder"):
        data.load("mnist")


def test_a_missing_file_is_refused(small_mnist):
    (small_mnist / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz does not exist"):
        data.load("mnist")


def test_a_file_that_is_not_the_official_one_is_refused(small_mnist):
    write_idx(small_mnist / "mnist" / "train-labels-idx1-ubyte.gz", np.arange(5)[::-1])
    with pytest.raises(DataError, match="has the sha256 .*, expected .* official file"):
        data.load("mnist")


def test_a_file_that_breaks_off_is_refused(small_mnist):
    path = small_mnist / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="replace it"):
        data.load("mnist")


def test_without_a_folder_the_data_comes_from_the_mirror(mirror):
    assert data.load("mnist").test_labels.tolist() == [0, 1, 2]


def test_what_came_from_the_mirror_is_kept(mirror):
    data.load("mnist")
    for file in mirror.iterdir():
        file.unlink()
    assert data.load("mnist").test_labels.tolist() == [0, 1, 2]


def test_a_mirror_with_another_file_is_refused(mirror):
    write_idx(mirror / "train-labels-idx1-ubyte.gz", np.arange(5)[::-1])
    with pytest.raises(DataError, match="could not be fetched .*set FLOWOPT_DATA"):
        data.load("mnist")


def test_a_mirror_without_the_file_is_refused(mirror):
    (mirror / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="could not be fetched .*404"):
        data.load("mnist")


def _dataset(**changes):
    parts = {
        "name": "toy",
        "train_inputs": torch.zeros(4, 2),
        "train_labels": torch.tensor([0, 1, 2, 0]),
        "test_inputs": torch.zeros(2, 2),
        "test_labels": torch.tensor([0, 1]),
        "classes": 3,
    }
    return data.Dataset(**{**parts, **changes})


def test_a_data_set_without_rows_is_refused():
    with pytest.raises(DataError, match="toy, test: 0 rows came"):
        _dataset(test_inputs=torch.zeros(0, 2), test_labels=torch.zeros(0, dtype=torch.int64))


def test_labels_that_do_not_match_the_rows_are_refused():
    with pytest.raises(DataError, match=r"labels of the shape \(3,\) came with inputs"):
        _dataset(train_labels=torch.tensor([0, 1, 2]))


def test_parts_with_different_features_are_refused():
    with pytest.raises(DataError, match=r"test inputs have the shape \(2, 5\)"):
        _dataset(test_inputs=torch.zeros(2, 5))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(DataError, match="expected 0 to 2"):
        _dataset(test_labels=torch.tensor([0, label]))


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_an_input_that_is_not_finite_is_refused(entry):
    with pytest.raises(DataError, match="NaN or infinite"):
        _dataset(train_inputs=torch.full((4, 2), entry))


@needs_data
def test_mnist_has_the_official_number_of_each_digit():
    mnist = data.load("mnist")
    assert mnist.train_labels.bincount().tolist() == MNIST_TRAIN_COUNTS
    assert mnist.test_labels.bincount().tolist() == MNIST_TEST_COUNTS


@needs_data
def test_mnist_has_784_features_with_the_official_mean_gray_level():
    mnist = data.load("mnist")
    assert mnist.train_inputs.shape == (60_000, 784)
    assert mnist.train_inputs.double().mean().item() * 255 == pytest.approx(33.318421, abs=1e-5)
    assert mnist.test_inputs.double().mean().item() * 255 == pytest.approx(33.791224, abs=1e-5)


def test_iris_has_40_training_and_10_test_rows_of_each_species():
    iris = data.load("iris")
    assert iris.train_labels.bincount().tolist() == [40, 40, 40]
    assert iris.test_labels.bincount().tolist() == [10, 10, 10]


def test_each_measurement_of_iris_goes_from_0_to_1():
    iris = data.load("iris")
    inputs = torch.cat([iris.train_inputs, iris.test_inputs])
    assert inputs.amin(0).tolist() == [0.0] * 4
    assert inputs.amax(0).tolist() == [1.0] * 4
    # Fisher's mean length of petals, 3.758 cm, between 1.0 and 6.9 cm.
    assert inputs[:, 2].double().mean().item() == pytest.approx((3.758 - 1.0) / 5.9, abs=1e-4)
