"""Data sets that come with scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import train_test_split

from studies.common.data.dataset import Dataset, class_labels, scaled_inputs


def digits() -> Dataset:
    """The 8 × 8 images of handwritten digits that come with scikit-learn.

    Returns:
        1437 training and 360 test rows of 64 features, gray level / 16, the classes in equal
        shares in both; the split is always the same.

    Reference:
        Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Repository.
    """
    images, labels = load_digits(return_X_y=True)
    return _split("digits", images, labels, test_rows=360, largest=16)


def iris() -> Dataset:
    """Fisher's measurements of three species of iris.

    Returns:
        120 training and 30 test rows of 4 features: length and width of sepal and petal, each
        from its smallest to its largest value in all 150 rows; 40 and 10 rows of every species,
        the split is always the same.

    Reference:
        Fisher 1936, Annals of Eugenics 7(2):179.
    """
    measurements, species = load_iris(return_X_y=True)
    measurements -= measurements.min(axis=0)
    measurements /= measurements.max(axis=0)
    return _split("iris", measurements, species, test_rows=30, largest=1)


def _split(
    name: str, inputs: np.ndarray, labels: np.ndarray, *, test_rows: int, largest: float
) -> Dataset:
    train_inputs, test_inputs, train_labels, test_labels = train_test_split(
        inputs, labels, test_size=test_rows, stratify=labels, random_state=0
    )
    return Dataset(
        name=name,
        train_inputs=scaled_inputs(train_inputs, largest=largest),
        train_labels=class_labels(train_labels),
        test_inputs=scaled_inputs(test_inputs, largest=largest),
        test_labels=class_labels(test_labels),
        classes=int(max(labels)) + 1,
    )
