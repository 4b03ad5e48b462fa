"""Rows that searches have found, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.random_index import DIM, random_rows
from oml_vit_ext.retrieval.index.milvus_candidates import MilvusCandidates

X = random_rows(np.arange(9))


def ask(queries, k):
    for query in queries:
        squared = ((X - query) ** 2).sum(axis=1)
        yield [{"key": f"k{i}", "distance": squared[i], "descriptor": X[i].tolist()} for i in np.argsort(squared)[:k]]


def test_found_rows_keep_their_number_and_can_be_read() -> None:
    candidates = MilvusCandidates(ask, n=9, dim=DIM)
    first, ids = candidates.search(X[[4, 5]], 3)
    assert candidates.found[ids[0, 0]]["key"] == "k4" and candidates.found[ids[1, 0]]["key"] == "k5"
    np.testing.assert_array_equal(candidates.take(ids[:, 0]), X[[4, 5]])
    _, again = candidates.search(X[[5, 4]], 3)
    assert (again == ids[::-1]).all() and first.shape == (2, 3)
    assert len(candidates) == 9 and len(candidates.found) <= 6
    assert "descriptor" not in candidates.found[0]


def test_fewer_hits_are_filled_up_and_images_that_came_in_meanwhile_left_out() -> None:
    distances, ids = MilvusCandidates(ask, n=9, dim=DIM).search(X[:1], 12)
    assert (ids[0, 9:] == -1).all() and np.isinf(distances[0, 9:]).all() and sorted(ids[0, :9]) == list(range(9))
    _, ids = MilvusCandidates(ask, n=7, dim=DIM).search(X[:1], 9)
    assert ids.max() == 6 and (ids[0] == -1).sum() == 2


def test_rows_that_nobody_found_cannot_be_read() -> None:
    with pytest.raises(IndexError):
        MilvusCandidates(ask, n=9, dim=DIM).take(np.array([0]))
