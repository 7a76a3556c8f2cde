"""A classification problem as tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from flowopt.errors import DataError


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

    def to(self, device: torch.device) -> Dataset:
        """The same data on a device."""
        tensors = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)

    def __post_init__(self) -> None:
        _check_part(f"{self.name}, training", self.train_inputs, self.train_labels, self.classes)
        _check_part(f"{self.name}, test", self.test_inputs, self.test_labels, self.classes)
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            raise DataError(
                f"{self.name}: test inputs have the shape {tuple(self.test_inputs.shape)}, "
                f"expected the features of {tuple(self.train_inputs.shape)}: use one data set"
            )


def scaled_inputs(images: ArrayLike, *, largest: float) -> Tensor:
    """Rows of anything from 0 to `largest` as (rows, features), float32, from 0 to 1."""
    entries = np.asarray(images, dtype=np.float32)
    return torch.from_numpy(entries.reshape(len(entries), -1) / np.float32(largest))


def class_labels(labels: ArrayLike) -> Tensor:
    """Labels as (rows,), int64."""
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
