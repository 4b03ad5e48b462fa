"""Both engines find what a plain comparison finds, and what faiss refuses is told in one sentence."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from oml_vit_ext.retrieval.engines import (
    ExactEngine,
    FaissEngine,
    add_rows,
    build_index,
    check_fillable,
    empty_index,
    make_engine,
    train_index,
)
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import Settings

RNG = np.random.default_rng(0)


GALLERY, QUERIES = (RNG.standard_normal((n, 8)).astype(np.float32) for n in (2_500, 20))


SQUARED = ((QUERIES[:, None].astype(np.float64) - GALLERY) ** 2).sum(axis=2)


ORDER = SQUARED.argsort(axis=1)


@pytest.mark.parametrize("memory_mb", [1e-6, 0.04, 100.0], ids=["many blocks", "two blocks", "one block"])
@pytest.mark.parametrize("k", [1, 10, 2_500])
def test_the_exact_engine_compares_everything(memory_mb: float, k: int):
    squared, found = ExactEngine(Rows(GALLERY), memory_mb).search(QUERIES, k)
    np.testing.assert_allclose(squared, np.take_along_axis(SQUARED, found, axis=1), atol=1e-4)
    np.testing.assert_allclose(squared, np.sort(SQUARED, axis=1)[:, :k], atol=1e-4)
    assert all(len(set(row)) == k for row in found.tolist())


@pytest.mark.parametrize(
    ("index", "search_params"), [("IVF16,Flat", "nprobe=16"), ("HNSW32", "efSearch=400"), ("PCAR8,Flat", "")]
)
def test_an_index_that_looks_everywhere_finds_the_same(index: str, search_params: str):
    engine = make_engine(Rows(GALLERY), Settings(index=index, search_params=search_params, memory_mb=0.01))
    assert not engine.exact
    squared, found = engine.search(QUERIES, 5)
    assert (found == ORDER[:, :5]).mean() > 0.95
    np.testing.assert_allclose(squared, np.take_along_axis(SQUARED, found, axis=1), atol=1e-4)


def test_flat_is_the_exact_engine_and_has_no_settings():
    assert isinstance(make_engine(Rows(GALLERY), Settings()), ExactEngine)
    with pytest.raises(ValueError, match="search_params is 'nprobe=4', but index 'Flat' is exact and has none"):
        make_engine(Rows(GALLERY), Settings(search_params="nprobe=4"))


def test_engines_of_one_index_keep_their_settings():
    index = build_index(Rows(GALLERY), "IVF64,Flat", memory_mb=1, verbose=False)
    narrow, wide = FaissEngine(index, "nprobe=1", "IVF64,Flat"), FaissEngine(index, "nprobe=64", "IVF64,Flat")
    before = narrow.search(QUERIES, 10)[1]
    assert (wide.search(QUERIES, 10)[1] == ORDER[:, :10]).mean() > 0.95
    np.testing.assert_array_equal(narrow.search(QUERIES, 10)[1], before)
    assert (before == ORDER[:, :10]).mean() < 0.5


def test_an_index_is_filled_from_a_row_on_in_blocks():
    added = []

    class Counting(Rows):
        def block(self, start: int, stop: int) -> np.ndarray:
            added.append((start, stop))
            return super().block(start, stop)

    index = empty_index(8, "Flat")
    index.add(GALLERY[:100])
    add_rows(index, Counting(GALLERY), start=100, memory_mb=1e-6, verbose=False)
    assert added == [(100, 1_124), (1_124, 2_148), (2_148, 2_500)], "at least 1024 rows at once"
    np.testing.assert_array_equal(index.reconstruct_n(0, 2_500), GALLERY)


def test_no_more_rows_than_needed_train_an_index(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("oml_vit_ext.retrieval.engines._LEAST_TRAINING_ROWS", 600)
    trained_on = []
    for index, n_rows in (("IVF4,Flat", 4 * 256), ("IVF2,Flat", 600), ("IVF16,Flat", 2_500)):
        built = empty_index(8, index)
        monkeypatch.setattr(built, "train", lambda x, train=built.train: trained_on.append(x) or train(x))
        train_index(built, Rows(GALLERY), index, verbose=False)
        assert built.is_trained and len(np.unique(trained_on[-1], axis=0)) == n_rows
        assert {row.tobytes() for row in trained_on[-1]} <= {row.tobytes() for row in GALLERY}
    train_index(built, Rows(GALLERY), index, verbose=False)
    assert len(trained_on) == 3, "a trained index is left alone"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            "IVFlat",
            r"^index 'IVFlat' cannot be built for dimension 8: could not parse .*Expected a faiss factory",
        ),
        ("PQ3", "^index 'PQ3' cannot be built for dimension 8: .*multiple of the number of subquantizers"),
        (
            "IVF4096,Flat",
            r"cannot be trained on a gallery of 2,500 rows of dimension 8: .*Use a smaller index",
        ),
    ],
)
def test_what_faiss_refuses_is_one_sentence(index: str, message: str):
    with pytest.raises(ValueError, match=message) as told:
        build_index(Rows(GALLERY), index, memory_mb=1, verbose=False)
    assert ".cpp" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "index",
    [
        *("HNSW0", "HNSW1", "HNSW4096", "NSG0", "IVF4_HNSW0,Flat", "IVF4(HNSW1),Flat"),  # end the process, or hang
        *("IVF0,Flat", "IVF1000000000,Flat", "IVF999999999", "IMI2x16,Flat", "PQ8x30", "IVF16,PQ8x24", "RQ4x24"),
        *("ZnLattice0x1_1", "PQ0", "RQ0x4", "LSQ0x4", "IVF2,ZnLattice0x0_0,Flat"),  # the first ends the process
        *("LSQ4x24", "PQ8x0", "RR0,Flat", "NSG1", "Pad1000000000,Flat", "PQ" + "9" * 5000),
    ],
)
def test_numbers_that_no_index_can_have_are_refused(index: str) -> None:
    with pytest.raises(ValueError, match=r"in index .* expected a whole number from"):
        empty_index(64, index)


@pytest.mark.parametrize(
    ("index", "least"),
    [
        *(("PQ8x6", 64), ("RQ2x6", 64), ("PRQ2x2x6", 64), ("IVF4,RQ2x6", 64), ("IVF48,PQ4x4fs", 48), ("LSQ2x6", 0)),
        *(("IMI2x5,PQ4x4", 32), ("HNSW8_PQ4x6", 64), ("IVF64(PQ4x6),Flat", 64), ("IVF4,SQ8", 4), ("ITQ8,LSH", 8)),
    ],
)
def test_too_few_rows_are_told_before_the_work_and_as_many_as_needed_will_do(index: str, least: int):
    if least:
        with pytest.raises(ValueError, match=rf"{least - 1} rows of dimension 8, expected at least {least}\."):
            check_fillable(8, index, least - 1)
    n_rows = max(least, 1)
    check_fillable(8, index, n_rows)
    built = build_index(Rows(GALLERY[:n_rows]), index, memory_mb=10, verbose=False)
    assert built.ntotal == n_rows


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("IVF4(PQ4),Flat", "has 4 lists, expected at least 256 for 'PQ4', an index of their centroids"),
        ("IVF32(RQ2x6),Flat", "has 32 lists, expected at least 64 for 'RQ2x6'"),
        ("IVF100_NSG8,Flat", "has 100 lists, expected at least 101 for 'NSG8'"),
        ("RCQ2x4", "cannot be filled: it only assigns vectors to lists, for other indexes"),
        ("Residual1x6,PQ4", "cannot be filled: it only assigns vectors to lists, for other indexes"),
    ],
)
def test_indexes_that_no_number_of_rows_can_fill(index: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_fillable(8, index, 10_000)


@pytest.mark.parametrize(
    "index",
    [
        *("Flat", "IVF1024,Flat", "HNSW32", "IVF4096,PQ48np", "IVF65536_HNSW32,Flat", "OPQ16_64,IVF16,PQ16x4fs"),
        *("IMI2x8,Flat", "RQ4x8", "PRQ2x2x8", "SQ8", "PCA32,SQ8", "IVF256(HNSW16),PQ8x8", "PQ16x12", "LSH", "NSG16"),
        "IVF16,PQ4x4fs,RFlat",
    ],
)
def test_what_people_use_is_built(index: str) -> None:
    empty_index(96 if "PQ48" in index else 64, index)


def test_what_faiss_is_set_to_is_left_alone() -> None:
    own = faiss.cvar.distance_compute_blas_database_bs
    faiss.cvar.distance_compute_blas_database_bs = 777
    rows = np.random.default_rng(0).standard_normal((3_000, 16)).astype(np.float32)
    engine = ExactEngine(Rows(rows), 100)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: engine.search(rows[:200], 3)[1], range(40)))
        assert faiss.cvar.distance_compute_blas_database_bs == 777
    finally:
        faiss.cvar.distance_compute_blas_database_bs = own
    assert all((ids == found[0]).all() for ids in found) and (found[0][:, 0] == np.arange(200)).all()


def test_an_index_that_faiss_cannot_search_is_told():
    """Of two dimensions a product quantizer of 2 bits can be built and filled, but not searched."""
    rows = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    engine = make_engine(Rows(rows), Settings(index="PQ1x2"))
    with pytest.raises(ValueError, match=r"index 'PQ1x2' cannot be searched: .*goes with dimension 2"):
        engine.search(rows[:2], 1)


@pytest.mark.parametrize(
    ("dim", "index"), [(100_000, "PQ1x16"), (65_536, "IVF4,PQ4x16"), (8, "Pad65536,PQ1x16"), (8, "OPQ8_65536,PQ8x16")]
)
def test_centroids_of_gigabytes_are_refused_before_they_are_there(dim: int, index: str):
    """A manifest of a few hundred kilobytes can ask for them."""
    with pytest.raises(ValueError, match=r"has centroids of \d+\.\d GB for dimension \d+, expected at most 2\.1 GB"):
        empty_index(dim, index)
