import gzip

import numpy as np
import pytest

from flowopt.errors import DataError
from studies.common.data.idx import read_idx
from tests.studies.idx_files import idx_bytes, write_idx

IMAGES = np.arange(2 * 3 * 4).reshape(2, 3, 4)


def test_what_is_written_is_read(tmp_path):
    path = write_idx(tmp_path / "images.gz", IMAGES)
    np.testing.assert_array_equal(read_idx(path, dimensions=3), IMAGES)


def test_a_file_of_labels_is_refused_where_images_are_expected(tmp_path):
    path = write_idx(tmp_path / "labels.gz", np.arange(9))
    with pytest.raises(DataError, match=r"magic number 2049, expected 2051"):
        read_idx(path, dimensions=3)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="can not be unpacked"):
        read_idx(tmp_path / "none.gz", dimensions=3)


def test_a_file_that_is_not_gzip_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(DataError, match="expected a whole gzip file"):
        read_idx(path, dimensions=3)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_gzip_file_that_breaks_off_is_refused(tmp_path, kept):
    path = write_idx(tmp_path / "images.gz", IMAGES)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match="expected a whole gzip file"):
        read_idx(path, dimensions=3)


@pytest.mark.parametrize("length", [0, 3, 15])
def test_a_header_that_breaks_off_is_refused(tmp_path, length):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)[:length]))
    with pytest.raises(DataError, match=rf"has {length} bytes .*expected a header of 16"):
        read_idx(path, dimensions=3)


@pytest.mark.parametrize("change", [-1, 1])
def test_entries_that_disagree_with_the_header_are_refused(tmp_path, change):
    whole = idx_bytes(IMAGES)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(whole[:-1] if change < 0 else whole + b"\0"))
    with pytest.raises(DataError, match=rf"holds {24 + change} entries, expected 24"):
        read_idx(path, dimensions=3)


def test_a_file_without_rows_is_refused(tmp_path):
    path = write_idx(tmp_path / "images.gz", np.empty((0, 28, 28)))
    with pytest.raises(DataError, match=r"sizes \[0, 28, 28\], expected data"):
        read_idx(path, dimensions=3)


def test_sizes_whose_product_passes_64_bits_are_refused(tmp_path):
    header = np.array([0x0803, 2**31, 2**31, 2**31], dtype=">u4").tobytes()
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(header))
    with pytest.raises(DataError, match=f"expected {2**93}"):
        read_idx(path, dimensions=3)
