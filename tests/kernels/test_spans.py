"""Memory that is written, and rows of tables, against slow twins in Python."""

import numpy as np
import pytest

from flowopt.kernels.native.memory.spans import Spans, lay


def drawn(generator, count, sparse):
    addresses = generator.integers(0, 200 if sparse else 40, count)
    return addresses.astype(np.int64), generator.integers(0, 4, count).astype(np.int64)


def overlap(first, second):
    (a, n), (b, m) = first, second
    return n > 0 and m > 0 and a < b + m and b < a + n


@pytest.mark.parametrize("sparse", [False, True])
def test_overlaps_are_those_that_a_comparison_of_all_pairs_finds(sparse):
    generator = np.random.default_rng(3)
    seen = set()
    for _ in range(400):
        written = drawn(generator, generator.integers(0, 9), sparse)
        read = drawn(generator, generator.integers(0, 9), sparse)
        own, others = list(zip(*written, strict=True)), list(zip(*read, strict=True))
        spans = Spans(*written)
        apart = not any(overlap(a, b) for i, a in enumerate(own) for b in own[:i])
        assert spans.apart == apart
        if apart:
            free = not any(overlap(a, b) for a in own for b in others)
            assert spans.free_of(*read) == free
            seen.add(free)
    assert seen == {False, True}


@pytest.mark.parametrize("place", range(6))
def test_one_byte_in_any_span_is_found_whatever_was_found_before(place):
    begins = np.arange(0, 60, 10, dtype=np.int64)
    spans = Spans(begins, np.full(6, 5, dtype=np.int64))
    free = begins + 5
    for order in (free, free[::-1].copy(), np.roll(free, 3)):
        assert spans.free_of(order, np.full(6, 5, dtype=np.int64))
        hit = np.append(order, begins[place] + 4)
        assert not spans.free_of(hit, np.append(np.full(6, 5), 1))
        assert spans.free_of(hit, np.append(np.full(6, 5), 0))


def test_rows_begin_where_their_tensors_do_so_many_bytes_further():
    generator = np.random.default_rng(5)
    addresses = generator.integers(0, 1 << 40, (3, 7))
    owner, shift = generator.integers(0, 7, 20), generator.integers(0, 999, 20)
    table = np.full((20, 5), -1)
    lay(addresses, owner, shift, table)
    assert (table[:, :3] == addresses.T[owner] + shift[:, None]).all()
    assert (table[:, 3:] == -1).all()
