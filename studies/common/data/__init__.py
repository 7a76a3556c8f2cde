"""Data sets for studies, as tensors: `load("digits")`, `load("iris")`, `load("mnist")`.

Digits and Iris come with scikit-learn. MNIST and CIFAR-10 come from the folder that the environment
variable `FLOWOPT_DATA` names (in `mnist/` and `cifar10/`, files under their official names) or,
where the variable is unset, from a public mirror into pooch's cache. Either way they are checked by
sha256.
"""

from functools import cache

from flowopt.errors import DataError
from studies.common.data.cifar_images import cifar10
from studies.common.data.dataset import Dataset
from studies.common.data.mnist_images import mnist
from studies.common.data.small import digits, iris
from studies.common.devices import checked_device
from studies.common.names import unknown_name

__all__ = ["LOADERS", "Dataset", "cifar10", "digits", "iris", "load", "load_once", "mnist"]

LOADERS = {"digits": digits, "iris": iris, "mnist": mnist, "cifar10": cifar10}


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


@cache
def load_once(name: str, device: str) -> Dataset:
    """A data set on a device, loaded once per process: sent along with tasks it would be copied.

    Raises:
        ConfigurationError: There is no such device here.
        DataError: The name is unknown, or the data can not be had.
    """
    return load(name).to(checked_device(device))
