"""Retrieval of random embeddings, splits and sequences, beside a plain comparison of everything with everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from helpers.toy_retrieval import Items
from oml_vit_ext.retrieval import faiss_search, retrieve
from oml_vit_ext.retrieval.engines import ExactEngine, check_fillable
from oml_vit_ext.retrieval.rows import Rows, StackedRows
from oml_vit_ext.retrieval.search_params import parse_search_params
from oml_vit_ext.retrieval.settings import Settings

VALUES = st.one_of(
    st.integers(-3, 3).map(float),  # many ties
    st.floats(-10, 10, width=32),
    st.sampled_from([float(np.float32(x)) for x in (1e-6, 1e-18, 1e6, -1e15, 3e18)]),
)


@st.composite
def tasks(draw: Any) -> tuple[np.ndarray, pd.DataFrame]:
    """Embeddings (n, dim) without zero rows, and a frame with a split, labels and perhaps sequences."""
    n, dim = draw(st.integers(2, 14)), draw(st.integers(1, 4))
    rows = draw(hnp.arrays(np.float32, (n, dim), elements=VALUES))
    rows[(rows == 0).all(axis=1)] = 1
    columns = {
        "label": draw(st.lists(st.one_of(st.integers(0, 2), st.just(2**62)), min_size=n, max_size=n)),
        "is_query": draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        "is_gallery": draw(st.lists(st.booleans(), min_size=n, max_size=n)),
    }
    columns["is_query"][0] = columns["is_gallery"][1] = True
    if draw(st.booleans()):
        columns["sequence"] = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    return rows, pd.DataFrame(columns)


def dataset(frame: pd.DataFrame) -> DFQueryGalleryLabeledDataset:
    extra = {"sequence": frame["sequence"].tolist()} if "sequence" in frame else {}
    items = Items(len(frame))
    items.extra_data = extra
    return DFQueryGalleryLabeledDataset(items, frame, extra_data=extra)


def check(found: RetrievalResults, rows: np.ndarray, frame: pd.DataFrame, n_items: int, *, exact: bool) -> None:
    queries, gallery = (np.flatnonzero(frame[column]) for column in ("is_query", "is_gallery"))
    for i, query in enumerate(queries):
        apart = np.sqrt(((rows[query].astype(np.float64) - rows[gallery].astype(np.float64)) ** 2).sum(axis=1))
        may = gallery != query
        if "sequence" in frame:
            may &= frame["sequence"].to_numpy()[gallery] != frame["sequence"][query]
        ids, distances = found.retrieved_ids[i].numpy(), found.distances[i].numpy()
        # Squares of less than 1e-19 are zero in float32.
        atol = 1e-4 * np.linalg.norm(rows[query].astype(np.float64)) + 1e-18
        assert may[ids].all() and len(set(ids)) == len(ids) and (np.diff(distances) >= 0).all()
        np.testing.assert_allclose(distances, apart[ids], rtol=1e-4, atol=atol)
        if exact:
            assert len(ids) == min(n_items, may.sum())
            np.testing.assert_allclose(distances, np.sort(apart[may])[:n_items], rtol=1e-4, atol=atol)
        same = frame["label"].to_numpy()[gallery] == frame["label"][query]
        assert found.gt_ids[i].tolist() == np.flatnonzero(same & may).tolist()


@pytest.mark.filterwarnings("ignore")
@fuzz(short=30, long=1_500)
@given(tasks(), st.integers(1, 20), st.sampled_from([0.001, 256.0]))
def test_exact_search(task: tuple[np.ndarray, pd.DataFrame], n_items: int, memory_mb: float):
    rows, frame = task
    found = retrieve(rows, dataset(frame), n_items, memory_mb=memory_mb)
    check(found, rows, frame, n_items, exact=True)


@pytest.mark.filterwarnings("ignore")
@fuzz(short=20, long=800)
@given(tasks(), st.integers(1, 20))
def test_as_oml_and_inside_of_it(task: tuple[np.ndarray, pd.DataFrame], n_items: int):
    rows, frame = task
    frame = frame.assign(is_query=frame.is_query | (frame.index < 2), is_gallery=True)  # OML cannot do with one
    rows = np.clip(rows, -100, 100)  # OML's distances overflow earlier
    found = retrieve(torch.from_numpy(rows), dataset(frame), n_items)
    theirs = RetrievalResults.from_embeddings(torch.from_numpy(rows), dataset(frame), n_items=n_items)
    with faiss_search():
        inside = RetrievalResults.from_embeddings(torch.from_numpy(rows), dataset(frame), n_items=n_items)
    assert len(found.distances) == len(theirs.distances) == len(inside.distances)
    for mine, their, same in zip(found.distances, theirs.distances, inside.distances, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-3, atol=0.2)  # theirs is off by that much near zero
        torch.testing.assert_close(mine, same, rtol=0, atol=0)
    for mine, their, same in zip(found.gt_ids, theirs.gt_ids, inside.gt_ids, strict=True):
        assert mine.tolist() == their.tolist() == same.tolist()


@pytest.mark.filterwarnings("ignore")
@fuzz(short=10, long=400)
@given(
    tasks(),
    st.integers(1, 20),
    st.sampled_from(
        [("IVF2,Flat", "nprobe=2"), ("IVF1,Flat", ""), ("HNSW4", "efSearch=64"), ("SQ8", ""), ("PQ1x2", "")]
    ),
)
def test_approximate_search(task: tuple[np.ndarray, pd.DataFrame], n_items: int, index: tuple[str, str]):
    rows, frame = task
    rows = np.clip(rows, -1e6, 1e6)
    rows[(rows == 0).all(axis=1)] = 1
    found = result_or_refusal(lambda: retrieve(rows, dataset(frame), n_items, index[0], search_params=index[1]))
    if not isinstance(found, Refusal):  # a gallery too small to train it
        check(found, rows, frame, n_items, exact=False)


@fuzz(short=6, long=150)
@given(st.integers(0, 2**32), st.integers(1_025, 4_000), st.integers(1, 1_100), st.integers(1, 3))
def test_an_engine_that_goes_through_blocks(seed: int, n_gallery: int, k: int, dim: int):
    rng = np.random.default_rng(seed)
    gallery, queries = (rng.integers(-50, 50, (n, dim)).astype(np.float32) for n in (n_gallery, 3))
    squared, ids = ExactEngine(Rows(gallery), memory_mb=0.001).search(queries, k)
    plain = ((queries[:, None].astype(np.float64) - gallery[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared, np.sort(plain, axis=1)[:, :k], atol=0.5)
    np.testing.assert_allclose(np.take_along_axis(plain, ids, axis=1), squared, atol=0.5)
    assert all(len(set(row)) == k for row in ids)


@fuzz(short=20, long=500)
@given(
    st.lists(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(2)), elements=VALUES), min_size=1, max_size=4),
    st.data(),
)
def test_stacked_rows(parts: list[np.ndarray], data: Any):
    stacked, whole = StackedRows(parts), np.concatenate(parts)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    positions = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)), dtype=np.int64)
    assert len(stacked) == len(whole)
    np.testing.assert_array_equal(stacked.block(start, stop), whole[start:stop])
    np.testing.assert_array_equal(stacked.take(positions), whole[positions])


ODD_EMBEDDINGS = st.one_of(
    ODD_VALUES,
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.bool_, np.complex64, np.uint8]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    hnp.arrays(np.float64, (3, 2), elements=st.sampled_from([np.nan, np.inf, 0.0, 1.0, 1e200, -1e19, 1e-200])),
)
FRAME = pd.DataFrame({"label": [0, 0, 1], "is_query": True, "is_gallery": True})


@pytest.mark.filterwarnings("ignore")
@fuzz(short=50, long=2_000)
@given(ODD_EMBEDDINGS, st.booleans())
def test_what_are_no_embeddings_is_refused(embeddings: Any, as_tensor: bool):
    if as_tensor and isinstance(embeddings, np.ndarray):
        embeddings = torch.from_numpy(embeddings)
    found = result_or_refusal(lambda: retrieve(embeddings, dataset(FRAME)))
    if not isinstance(found, Refusal):
        assert all(
            len(ids) == 2 and torch.isfinite(d).all()
            for ids, d in zip(found.retrieved_ids, found.distances, strict=True)
        )


@pytest.mark.filterwarnings("ignore")
@fuzz(short=30, long=1_000)
@given(
    st.one_of(st.just(2), ODD_VALUES),
    st.one_of(st.just("Flat"), ODD_VALUES),
    st.one_of(st.just(""), ODD_VALUES, st.text("nprobe=16,efS ", max_size=12)),
    st.one_of(st.just(1.0), ODD_VALUES),
)
def test_odd_settings_are_refused(n_items: Any, index: Any, search_params: Any, memory_mb: Any):
    settings = {"index": index, "search_params": search_params, "memory_mb": memory_mb}
    found = result_or_refusal(lambda: retrieve(np.eye(3, dtype=np.float32), dataset(FRAME), n_items, **settings))
    assert isinstance(found, (Refusal, RetrievalResults))


PARTS = st.builds(
    lambda name, numbers: name.format(*numbers),
    st.sampled_from(
        [
            *(
                "Flat",
                "IVF{}",
                "HNSW{}",
                "PQ{}",
                "PQ{}x{}",
                "SQ8",
                "SQ{}",
                "OPQ{}",
                "OPQ{}_{}",
                "PCA{}",
                "PCAR{}",
                "RR{}",
            ),
            *(
                "L2norm",
                "LSH",
                "LSHr",
                "IMI{}x{}",
                "RFlat",
                "Refine(SQ8)",
                "NSG{}",
                "IDMap",
                "ITQ{}",
                "Pad{}",
                "RQ{}x{}",
            ),
            *(
                "LSQ{}x{}",
                "Residual{}",
                "PRQ{}x{}x{}",
                "IVF{}_HNSW{}",
                "PQ{}x{}fs",
                "SQfp16",
                "ZnLattice{}x{}_{}",
                "",
                "{}",
            ),
        ]
    ),
    st.lists(
        st.one_of(st.integers(0, 9), st.sampled_from([16, 32, 64, 1024, 99999, 2**31, 2**63, 10**20])),
        min_size=3,
        max_size=3,
    ),
)


@fuzz(short=30, long=1_500)
@given(
    st.lists(PARTS, min_size=1, max_size=3).map(",".join), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 50))
)
def test_strings_of_indexes(index: str, dim: int, n_rows: int | None):
    assert result_or_refusal(lambda: check_fillable(dim, index, n_rows)) is None or True


@fuzz(short=30, long=1_000)
@given(st.one_of(st.text(max_size=12), st.text("nprobe=16,efS .-e", max_size=16)))
def test_search_params(text: str):
    parsed = result_or_refusal(lambda: parse_search_params(text))
    assert isinstance(parsed, (Refusal, dict))


@fuzz(short=20, long=500)
@given(ODD_VALUES)
def test_odd_bounds_of_memory(memory_mb: Any):
    made = result_or_refusal(lambda: Settings(memory_mb=memory_mb))
    assert isinstance(made, Refusal) or made.memory_mb > 0
