"""Rows handed out in float32 blocks: the right ones, without a copy where none is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from oml_vit_ext.retrieval.engines import ExactEngine
from oml_vit_ext.retrieval.rows import Rows, StackedRows, check_dims

X = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


IDS = np.array([7, 7, 3, 49, 0])


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_blocks_and_rows_are_those_of_the_matrix(make, dtype: str):
    rows, chosen = Rows(make(X.astype(dtype))), Rows(make(X.astype(dtype)), IDS)
    expected = X.astype(dtype).astype(np.float32)
    assert (len(rows), rows.dim, len(chosen), chosen.dim) == (50, 4, 5, 4)
    for found, plain in (
        (rows.block(3, 9), expected[3:9]),
        (rows.take(IDS), expected[IDS]),
        (chosen.block(1, 4), expected[IDS[1:4]]),
        (chosen.take(np.array([4, 0])), expected[IDS[[4, 0]]]),
    ):
        assert found.dtype == np.float32 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, plain)
    starts, blocks = zip(*chosen.blocks(2), strict=True)
    assert starts == (0, 2, 4)
    np.testing.assert_array_equal(np.concatenate(blocks), expected[IDS])


def test_nothing_is_copied_where_that_is_possible(tmp_path: Path):
    assert np.shares_memory(Rows(X).block(10, 20), X)
    assert np.shares_memory(Rows(X, np.arange(50)).block(10, 20), X)
    assert np.shares_memory(Rows(torch.from_numpy(X)).block(10, 20), X)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(Rows(mapped).block(0, 50), mapped)


def test_several_matrices_are_one():
    stacked, ends = StackedRows([X[:10], X[10:11], X[10:10], X[11:]]), [0, 5, 10, 11, 12, 50]
    assert (len(stacked), stacked.dim) == (50, 4)
    for start in ends:
        for stop in (end for end in ends if end >= start):
            np.testing.assert_array_equal(stacked.block(start, stop), X[start:stop])
    np.testing.assert_array_equal(stacked.take(np.array([49, 0, 10, 11, 9, 10])), X[[49, 0, 10, 11, 9, 10]])
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in stacked.blocks(7)]), X)
    assert np.shares_memory(stacked.block(2, 10), X)


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (0.0, "nothing but zeros")]
)
@pytest.mark.parametrize("make", [Rows, lambda x: StackedRows([x[:8], x[8:]])], ids=["one", "stacked"])
def test_rows_without_meaning_are_counted_and_the_first_is_named(make, value: float, what: str):
    make(X).check()
    wrong = X.copy()
    wrong[[12, 31]] = value
    with pytest.raises(ValueError, match=rf"embeddings: 2 of the rows 0 to 49 hold {what} \(the first: row 12\)"):
        make(wrong).check()


def test_a_single_zero_is_no_zero_row():
    some = X.copy()
    some[5, 1:] = 0
    Rows(some).check()
    Rows(-np.abs(some)).check()


def test_what_is_no_matrix_of_numbers_is_told():
    for wrong, message in [
        ([[1.0]], "queries are a list, expected a torch tensor or a numpy array"),
        (X[0], r"queries have shape \(4,\), expected \(rows, dim\)"),
        (X.astype(int), "queries are of type int64, expected floating-point numbers"),
        (torch.from_numpy(X).to_sparse(), r"queries are of device cpu and torch\.sparse_coo, expected numbers"),
        (torch.empty(3, 4, device="meta"), r"queries are of device meta and torch\.strided, expected numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            Rows(wrong, name="queries")
    for empty in (X[:0], X[:, :0]):
        with pytest.raises(ValueError, match=r"embeddings have shape \(.*\): there is nothing to search"):
            Rows(empty).check()
    check_dims(Rows(X), Rows(X[:3]))
    with pytest.raises(ValueError, match="queries have dimension 2, but gallery have 4: expected the same"):
        check_dims(Rows(X[:, :2], name="queries"), Rows(X, name="gallery"))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (1e19, "numbers above"), (-3e37, "numbers above")],
)
def test_rows_whose_distances_float32_cannot_hold_are_refused(make, value: float, what: str) -> None:
    matrix = np.ones((5, 4), np.float32)
    matrix[3, 2] = value
    with pytest.raises(ValueError, match=rf"1 of the rows 0 to 4 hold {what}.*row 3\)"):
        Rows(make(matrix)).check()


def test_the_longest_rows_are_all_found() -> None:
    matrix = np.random.default_rng(0).choice([-4.4e18, 4.4e18], (50, 4)).astype(np.float32)
    rows = Rows(matrix)
    rows.check()
    distances, found = ExactEngine(rows, 1).search(matrix, 50)
    assert np.isfinite(distances).all() and (np.sort(found, axis=1) == np.arange(50)).all()
