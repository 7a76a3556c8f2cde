"""CIFAR-10, from its official Python pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowopt.errors import DataError
from studies.common.data.dataset import Dataset, class_labels, scaled_inputs
from studies.common.data.files import Source, official_file
from studies.common.data.pickles import read_arrays

TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
SOURCE = Source(
    title="CIFAR-10",
    folder="cifar10",
    address="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    checksums={
        "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
        "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
        "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
        "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
        "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
        "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    },
    archive_checksum="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    archive_folder="cifar-10-batches-py",
)
CLASSES = 10
# Red, green and blue of 32 × 32 pixels.
FEATURES = 3 * 32 * 32


def cifar10() -> Dataset:
    """The 32 × 32 colour images of ten kinds of things of CIFAR-10, in their official split.

    Returns:
        50 000 training and 10 000 test rows of 3072 features, level / 255: all red ones row by
        row, then green, then blue.

    Raises:
        DataError: The folder or a file is missing, a file is not the official one, or it can
            not be fetched.

    Reference:
        Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, University of
        Toronto.
    """
    parts = [read_batch(official_file(SOURCE, name)) for name in TRAIN_FILES]
    images, labels = zip(*parts, strict=True)
    test_images, test_labels = read_batch(official_file(SOURCE, TEST_FILE))
    return Dataset(
        name="cifar10",
        train_inputs=scaled_inputs(np.concatenate(images), largest=255),
        train_labels=class_labels(np.concatenate(labels)),
        test_inputs=scaled_inputs(test_images, largest=255),
        test_labels=class_labels(test_labels),
        classes=CLASSES,
    )


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one of CIFAR-10's files.

    Args:
        path: The file.

    Returns:
        (rows, 3072), uint8, and (rows,), int64.

    Raises:
        DataError: The file is no pickle of arrays, or holds something else than images with labels.
    """
    content = read_arrays(path)
    images, labels = content.get(b"data"), content.get(b"labels")
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != FEATURES:
        raise DataError(
            f"{path}: b'data' is {_described(images)}, expected an array of the shape "
            f"(rows, {FEATURES}): it is another kind of file"
        )
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise DataError(
            f"{path}: b'labels' is {_described(labels)}, expected a list of {len(images)} whole "
            "numbers: it is another kind of file"
        )
    return images, np.array(labels, dtype=np.int64)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of the shape {value.shape}"
    if isinstance(value, list):
        return f"a list of length {len(value)}"
    return "missing" if value is None else f"a {type(value).__name__}"
