"""Search by the first dimensions, beside a plain computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.embedders import paths_of
from helpers.random_index import DIM, add_random, random_index, random_rows
from oml_vit_ext.retrieval.first_dims import FirstDimsEngine, first_of
from oml_vit_ext.retrieval.rows import Rows

QUERIES = random_rows(np.arange(1_000, 1_007))


def plainly(queries: np.ndarray, gallery: np.ndarray, first: int, shortlist: int, k: int) -> list[list[int]]:
    """Positions: the nearest by scaled prefixes, those ordered by whole distances."""

    def scaled(rows: np.ndarray) -> np.ndarray:
        short = rows[:, :first].astype(np.float64)
        return short / np.linalg.norm(short, axis=1)[:, None] * np.linalg.norm(rows, axis=1)[:, None]

    found = []
    for query, short in zip(queries, scaled(queries), strict=True):
        candidates = np.argsort(np.linalg.norm(scaled(gallery) - short, axis=1))[: max(shortlist, k)]
        whole = np.linalg.norm(gallery[candidates] - query, axis=1)
        found.append(candidates[np.argsort(whole)][:k].tolist())
    return found


@pytest.mark.parametrize("first, shortlist, k", [(3, 9, 4), (3, 2, 5), (1, 10, 3), (DIM, 5, 5), (3, 1_000, 6)])
def test_an_index_finds_what_a_plain_computation_finds(tmp_path: Path, first: int, shortlist: int, k: int):
    index = random_index(tmp_path)
    hits = index.search(QUERIES, k, first_dims=first, shortlist=shortlist)
    expected = plainly(QUERIES, random_rows(np.arange(40)), first, shortlist, k)
    assert [[int(hit.path[:6]) for hit in row] for row in hits] == expected
    distances = [[hit.distance for hit in row] for row in hits]
    whole = [np.linalg.norm(random_rows(np.array(row)) - q, axis=1) for row, q in zip(expected, QUERIES, strict=True)]
    np.testing.assert_allclose(distances, whole, rtol=1e-5)


def test_all_dimensions_or_all_images_are_the_exact_search(tmp_path: Path):
    index = random_index(tmp_path)
    exact = paths_of(index.search(QUERIES, 5))
    assert paths_of(index.search(QUERIES, 5, first_dims=DIM, shortlist=5)) == exact
    assert paths_of(index.search(QUERIES, 5, first_dims=1, shortlist=40)) == exact
    assert paths_of(index.search(QUERIES, 5, first_dims=1, shortlist=5)) != exact


def test_it_sees_images_that_come_and_go(tmp_path: Path):
    index = random_index(tmp_path)
    query = random_rows(np.array([45]))
    index.search(query, 1, first_dims=2)
    add_random(index, 10)
    assert index.search(query, 1, first_dims=2)[0][0].path == "000045.png"
    index.remove("000045.png")
    assert index.search(query, 1, first_dims=2)[0][0].path != "000045.png"


def test_blocks_of_the_gallery_change_nothing():
    gallery = random_rows(np.arange(3_000))
    small = FirstDimsEngine(Rows(gallery), 3, memory_mb=0.001)
    large = FirstDimsEngine(Rows(gallery), 3, memory_mb=100)
    for mine, other in zip(small.search(QUERIES, 7), large.search(QUERIES, 7), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5)


def test_a_prefix_without_length_stays_at_the_origin():
    assert first_of(np.array([[0.0, 0.0, 2.0], [3.0, 0.0, 4.0]], np.float32), 2).tolist() == [[0, 0], [5, 0]]


def test_what_cannot_be_searched_so(tmp_path: Path):
    index = random_index(tmp_path)
    with pytest.raises(ValueError, match=r"first_dims is 9, expected a whole number from 1 to 8 \(the width"):
        index.search(QUERIES, first_dims=9)
    with pytest.raises(ValueError, match="shortlist is 0, expected a whole number of at least 1"):
        index.search(QUERIES, first_dims=2, shortlist=0)
    with pytest.raises(ValueError, match="first_dims is 2, expected None for index 'IVF4,Flat'"):
        random_index(tmp_path, "IVF4,Flat").search(QUERIES, first_dims=2)
