"""MNIST."""

from __future__ import annotations

from studies.common.data.dataset import Dataset, class_labels, scaled_inputs
from studies.common.data.files import Source, official_file
from studies.common.data.idx import read_idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
SOURCE = Source(
    title="MNIST",
    folder="mnist",
    address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    checksums={
        TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
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
    path = {name: official_file(SOURCE, name) for name in SOURCE.checksums}
    return Dataset(
        name="mnist",
        train_inputs=scaled_inputs(read_idx(path[TRAIN_IMAGES], dimensions=3), largest=255),
        train_labels=class_labels(read_idx(path[TRAIN_LABELS], dimensions=1)),
        test_inputs=scaled_inputs(read_idx(path[TEST_IMAGES], dimensions=3), largest=255),
        test_labels=class_labels(read_idx(path[TEST_LABELS], dimensions=1)),
        classes=10,
    )
