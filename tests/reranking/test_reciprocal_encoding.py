"""The sparse functions of k-reciprocal encoding against loops over sets."""

from __future__ import annotations

import numpy as np
import pytest

from oml_vit_ext.reranking.reciprocal_encoding import (
    encode,
    largest_squared_distances,
    neighbour_lists,
    reciprocal,
    shared_weights,
    squared_distances,
    with_common_neighbours,
)
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import Settings

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((40, 5)).astype(np.float32)
SQUARED = ((POINTS[:, None] - POINTS[None]) ** 2).sum(axis=2)
LISTS = np.argsort(SQUARED, axis=1)


def _mutual(i: int, k: int) -> set[int]:
    return {j for j in LISTS[i, : k + 1].tolist() if i in LISTS[j, : k + 1]}


def test_neighbour_lists_begin_with_the_row_itself():
    np.testing.assert_array_equal(neighbour_lists(Rows(POINTS), 6, Settings()), LISTS[:, :7])
    copies = np.ones((9, 3), dtype=np.float32)
    found = neighbour_lists(Rows(copies), 3, Settings())
    np.testing.assert_array_equal(found[:, 0], np.arange(9))
    assert all(len(set(row.tolist())) == 4 for row in found)


def test_reciprocal_pairs_are_in_each_others_lists():
    found = reciprocal(LISTS[:, :6]).toarray()
    for i in range(40):
        assert set(np.flatnonzero(found[i])) == _mutual(i, 5)


@pytest.mark.parametrize(("start", "stop"), [(0, 40), (13, 21)])
def test_neighbourhoods_grow_by_those_that_share_two_thirds(start: int, stop: int):
    near, half = reciprocal(LISTS[:, :9]), reciprocal(LISTS[:, :5])
    found = with_common_neighbours(near, half, start, stop).toarray()
    grown = 0
    for i in range(start, stop):
        expected = set(_mutual(i, 8))
        for c in _mutual(i, 8):
            if len(_mutual(c, 4) & _mutual(i, 8)) > 2 / 3 * len(_mutual(c, 4)):
                expected |= _mutual(c, 4)
        assert set(np.flatnonzero(found[i - start])) == expected
        grown += len(expected) > len(_mutual(i, 8))
    assert grown


def test_encodings_sum_to_1_in_blocks_of_any_size():
    encoded, largest = encode(Rows(POINTS), 8, 3, Settings())
    np.testing.assert_allclose(encoded.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(largest, SQUARED.max(axis=1), rtol=1e-5)
    small, _ = encode(Rows(POINTS), 8, 3, Settings(memory_mb=0.02))
    np.testing.assert_allclose(small.toarray(), encoded.toarray(), rtol=1e-6)


def test_shared_weights_are_sums_of_minima():
    encoded, _ = encode(Rows(POINTS), 8, 3, Settings())
    dense = encoded.toarray()
    expected = np.minimum(dense[:10, None], dense[None, 10:]).sum(axis=2)
    for memory_mb in (1e-3, 256):
        blocks = list(shared_weights(encoded[:10], encoded[10:].tocsc(), memory_mb))
        assert [start for start, _ in blocks] == np.cumsum([0, *(b.shape[0] for _, b in blocks)])[:-1].tolist()
        assert len(blocks) > 1 or memory_mb == 256
        np.testing.assert_allclose(np.concatenate([b.toarray() for _, b in blocks]), expected, rtol=1e-5, atol=1e-7)


def test_distances_of_pairs_and_the_largest_of_each_row():
    pairs = RNG.integers(0, 40, (2, 70))
    found = squared_distances(Rows(POINTS), pairs[0], Rows(POINTS), pairs[1], 1e-3)
    np.testing.assert_allclose(found, SQUARED[pairs[0], pairs[1]], rtol=1e-4, atol=1e-5)
    many = RNG.standard_normal((300, 5)).astype(np.float32)
    expected = ((many[:, None] - many[None]) ** 2).sum(axis=2).max(axis=1)
    np.testing.assert_allclose(largest_squared_distances(Rows(many), 0.01), expected, rtol=1e-4)
