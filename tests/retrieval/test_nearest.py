"""Neighbours with what belongs together left out, against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from oml_vit_ext.retrieval.engines import make_engine
from oml_vit_ext.retrieval.nearest import Grouping, gather_groups, ground_truth, group_sizes, nearest, split_rows
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import Settings

RNG = np.random.default_rng(0)
QUERIES, GALLERY = (RNG.standard_normal((n, 6)).astype(np.float32) for n in (40, 90))
ITEMS = Grouping(np.arange(40), np.arange(90))  # the first 40 gallery items are the queries themselves
SEQUENCES = Grouping(RNG.integers(3, size=40), np.where(RNG.random(90) < 0.7, RNG.integers(3, size=90), 9))


def _search(queries: np.ndarray, gallery: np.ndarray, n_items: int, ignored: list[Grouping], **settings):
    rows = Rows(gallery)
    engine = make_engine(rows, Settings(**settings))
    return nearest(Rows(queries), rows, engine, n_items, ignored, Settings(**settings))


def _plain(queries: np.ndarray, gallery: np.ndarray, n_items: int, ignored: list[Grouping]):
    for q, query in enumerate(queries.astype(np.float64)):
        pairs = []
        for g, item in enumerate(gallery.astype(np.float64)):
            if not any(group.queries[q] == group.gallery[g] for group in ignored):
                pairs.append((float(np.sqrt(((query - item) ** 2).sum())), g))
        yield [list(column) for column in zip(*sorted(pairs)[:n_items], strict=True)] or [[], []]


@pytest.mark.parametrize(
    "ignored", [[], [ITEMS], [SEQUENCES], [ITEMS, SEQUENCES]], ids=["nothing", "items", "sequences", "both"]
)
@pytest.mark.parametrize("n_items", [1, 7, 60, 500])
@pytest.mark.parametrize("memory_mb", [1e-6, 256.0])
def test_neighbours_are_those_of_plain_loops(ignored: list[Grouping], n_items: int, memory_mb: float):
    found = _search(QUERIES, GALLERY, n_items, ignored, memory_mb=memory_mb)
    plain = list(_plain(QUERIES, GALLERY, n_items, ignored))
    assert len(found[0]) == len(found[1]) == len(plain)
    for distances, ids, (expected, positions) in zip(*found, plain, strict=True):
        assert ids.tolist() == positions
        np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_a_query_all_of_whose_items_are_left_out_finds_nothing():
    everything = Grouping(np.array([0, 1]), np.zeros(90, dtype=np.int64))
    distances, ids = _search(QUERIES[:2], GALLERY, 4, [everything])
    assert [len(row) for row in ids] == [len(row) for row in distances] == [0, 4]


def test_close_rows_get_the_digits_that_products_lose():
    offset = np.full(6, 100, dtype=np.float32)  # |x|² is 60 000, distances are about 1e-2
    queries, gallery = offset + 1e-2 * QUERIES, offset + 1e-2 * GALLERY
    distances, ids = _search(queries, gallery, 90, [])
    for found, positions, (expected, _) in zip(distances, ids, _plain(queries, gallery, 90, []), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert sorted(positions.tolist()) == list(range(90))


class Backwards:
    """Finds all rows, of equal distances the later one first."""

    exact = True

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        squared = ((queries[:, None] - GALLERY.repeat(2, axis=0)[None]) ** 2).sum(-1)[:, ::-1]
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(squared, order, axis=1), squared.shape[1] - 1 - order


def test_an_engine_with_equals_the_other_way_round_is_put_right():
    twice = Rows(GALLERY.repeat(2, axis=0))
    _, ids = nearest(Rows(QUERIES + 9), twice, Backwards(), 180, [], Settings())
    assert all((positions[1::2] == positions[::2] + 1).all() for positions in ids)


@pytest.mark.parametrize("memory_mb", [1e-6, 256.0])
@pytest.mark.parametrize("factory", ["Flat", "HNSW16"])
def test_of_items_at_the_same_distance_the_earlier_one_comes_first(factory: str, memory_mb: float):
    order = np.random.default_rng(1).permutation(90)
    gallery = np.tile(GALLERY[:30], (3, 1))[order]
    distances, ids = _search(QUERIES, gallery, 90, [ITEMS], index=factory, memory_mb=memory_mb)
    n_equal = 0
    for of_query, positions in zip(distances, ids, strict=True):
        equal = of_query[1:] == of_query[:-1]
        n_equal += int(equal.sum())
        assert (positions[1:] > positions[:-1])[equal].all()
    assert n_equal > 1_000


def test_true_items_are_those_of_the_label_but_for_what_is_left_out():
    labels = Grouping(RNG.integers(6, size=40), RNG.integers(5, size=90))
    found = ground_truth(labels, [ITEMS, SEQUENCES])
    for q in range(40):
        expected = [
            g
            for g in range(90)
            if labels.gallery[g] == labels.queries[q] and g != q and SEQUENCES.gallery[g] != SEQUENCES.queries[q]
        ]
        assert found[q].tolist() == expected
    assert any(len(ids) == 0 for ids in found) and any(len(ids) > 5 for ids in found)


def test_groups_are_counted_and_their_positions_gathered():
    codes, wanted = np.array([3, 1, 3, 5, 3, 1]), np.array([3, 4, 1, 3])
    assert group_sizes(wanted, codes).tolist() == [3, 0, 2, 3]
    positions, sizes = gather_groups(wanted, codes)
    assert positions.tolist() == [0, 2, 4, 1, 5, 0, 2, 4] and sizes.tolist() == [3, 0, 2, 3]
    nothing, none = gather_groups(wanted[:0], codes)
    assert len(nothing) == len(none) == 0


@pytest.mark.parametrize("counts", [[3, 3], [3, 1], [0, 2]])
def test_rows_are_split_by_their_counts(counts: list[int]):
    matrix = np.arange(6.0).reshape(2, 3)
    found = split_rows(matrix, np.array(counts))
    assert [row.tolist() for row in found] == [matrix[i, :n].tolist() for i, n in enumerate(counts)]
