"""Data sets for studies, as tensors: `load("digits")`, `load("mnist")`.

Digits come with scikit-learn. MNIST comes from the folder that the environment variable
`FLOWOPT_DATA` names (its files in `mnist/`, under their official names) or, where the variable
is unset, from a public mirror into pooch's cache. Either way its files are checked by sha256.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
from numpy.typing import ArrayLike
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from flowopt.errors import DataError
from studies.common.idx import read_idx
from studies.common.names import unknown_name

FOLDER_VARIABLE = "FLOWOPT_DATA"
MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_CHECKSUMS = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


@dataclass(frozen=True)
class Dataset:
    """A classification problem, split into training and test rows.

    Attributes:
        name: The name by which `load` knows it.
        train_inputs: (rows, features), float32, between 0 and 1.
        train_labels: (rows,), int64, 0 ≤ label < classes.
        test_inputs: (rows, features), as train_inputs.
        test_labels: (rows,), as train_labels.
        classes: How many classes there are.

    Raises:
        DataError: A part has no rows, inputs and labels differ in their rows, the features of
            both parts differ, an input is not finite, or a label is no class.
    """

    name: str
    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        _check_part(f"{self.name}, training", self.train_inputs, self.train_labels, self.classes)
        _check_part(f"{self.name}, test", self.test_inputs, self.test_labels, self.classes)
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            raise DataError(
                f"{self.name}: test inputs have the shape {tuple(self.test_inputs.shape)}, "
                f"expected the features of {tuple(self.train_inputs.shape)}: use one data set"
            )


def digits() -> Dataset:
    """The 8 × 8 images of handwritten digits that come with scikit-learn.

    Returns:
        1437 training and 360 test rows of 64 features, gray level / 16, the classes in equal
        shares in both; the split is always the same.

    Reference:
        Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Repository.
    """
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    return Dataset(
        name="digits",
        train_inputs=_inputs(train_images, largest=16),
        train_labels=_labels(train_labels),
        test_inputs=_inputs(test_images, largest=16),
        test_labels=_labels(test_labels),
        classes=10,
    )


def mnist() -> Dataset:
    """The 28 × 28 images of handwritten digits of MNIST, in their official split.

    Returns:
        60 000 training and 10 000 test rows of 784 features, gray level / 255.

    Raises:
        DataError: The folder or a file is missing, a file is not the official one, or it can
            not be fetched.

    Reference:
        LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11):2278.
    """
    path = {name: _mnist_file(name) for name in MNIST_CHECKSUMS}
    train_images = read_idx(path["train-images-idx3-ubyte.gz"], dimensions=3)
    test_images = read_idx(path["t10k-images-idx3-ubyte.gz"], dimensions=3)
    return Dataset(
        name="mnist",
        train_inputs=_inputs(train_images, largest=255),
        train_labels=_labels(read_idx(path["train-labels-idx1-ubyte.gz"], dimensions=1)),
        test_inputs=_inputs(test_images, largest=255),
        test_labels=_labels(read_idx(path["t10k-labels-idx1-ubyte.gz"], dimensions=1)),
        classes=10,
    )


LOADERS = {"digits": digits, "mnist": mnist}


def load(name: str) -> Dataset:
    """A data set by its name.

    Args:
        name: One of `LOADERS`.

    Returns:
        The data set.

    Raises:
        DataError: The name is unknown, or the data can not be had.
    """
    if name not in LOADERS:
        raise DataError(unknown_name("data set", name, LOADERS))
    return LOADERS[name]()


def _inputs(images: ArrayLike, *, largest: float) -> Tensor:
    entries = np.asarray(images, dtype=np.float32)
    return torch.from_numpy(entries.reshape(len(entries), -1) / np.float32(largest))


def _labels(labels: ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(labels, dtype=np.int64))


def _check_part(part: str, inputs: Tensor, labels: Tensor, classes: int) -> None:
    if len(inputs) == 0:
        raise DataError(f"{part}: 0 rows came, expected data: use a data set with rows")
    if labels.shape != inputs.shape[:1]:
        raise DataError(
            f"{part}: labels of the shape {tuple(labels.shape)} came with inputs of the shape "
            f"{tuple(inputs.shape)}, expected one label per row: use files of one data set"
        )
    if not inputs.isfinite().all():
        raise DataError(
            f"{part}: an input is NaN or infinite, expected finite ones: clean the data"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{part}: labels from {int(labels.min())} to {int(labels.max())} came, expected "
            f"0 to {classes - 1}: number the classes from 0"
        )


def _mnist_file(name: str) -> Path:
    folder = os.environ.get(FOLDER_VARIABLE)
    return _local_file(Path(folder), name) if folder else _fetched_file(name)


def _local_file(folder: Path, name: str) -> Path:
    remedy = f"correct {FOLDER_VARIABLE}, or unset it to fetch the data"
    if not folder.is_dir():
        raise DataError(f"{FOLDER_VARIABLE} names {folder}, expected a folder: {remedy}")
    path = folder / "mnist" / name
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected MNIST's official file: {remedy}")
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != MNIST_CHECKSUMS[name]:
        raise DataError(
            f"{path} has the sha256 {checksum}, expected {MNIST_CHECKSUMS[name]} of MNIST's "
            f"official file: replace it, {remedy}"
        )
    return path


def _fetched_file(name: str) -> Path:
    try:
        path = pooch.retrieve(
            MNIST_MIRROR + name,
            known_hash=f"sha256:{MNIST_CHECKSUMS[name]}",
            fname=name,
            path=pooch.os_cache("flowopt") / "mnist",
            progressbar=sys.stderr.isatty(),
        )
    # Network errors are OSErrors; pooch reports a wrong checksum as a ValueError.
    except (OSError, ValueError) as error:
        raise DataError(
            f"{MNIST_MIRROR + name} could not be fetched ({error}), expected MNIST's official "
            f"file: try again, or set {FOLDER_VARIABLE} to a folder with mnist/{name}"
        ) from error
    return Path(path)
