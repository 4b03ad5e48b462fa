"""Settings of a search hold for that search alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from oml_vit_ext.retrieval.engines import FaissEngine
from oml_vit_ext.retrieval.search_params import parse_search_params, search_parameters

DIM = 16


def _rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)


def _filled(factory: str) -> faiss.Index:
    index = faiss.index_factory(DIM, factory)
    index.train(_rows(3000))
    index.add(_rows(3000))
    return index


def _set_for_good(factory: str, text: str) -> np.ndarray:
    """What an index of its own finds after faiss has changed its settings."""
    index = _filled(factory)
    faiss.ParameterSpace().set_index_parameters(index, text)
    return index.search(_rows(40, 1), 10)[1]


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("IVF32,Flat", "nprobe=7"),
        ("IVF32,Flat", "nprobe=32,max_codes=200"),
        ("IVF32,PQ4x4np", "nprobe=9"),
        ("IVF32,PQ4x4fs", "nprobe=9"),
        ("HNSW8", "efSearch=90"),
        ("PCA8,IVF32,Flat", "nprobe=7"),
        ("PCA8,HNSW8", "efSearch=90"),
        ("IVF32_HNSW4,Flat", "nprobe=5,quantizer_efSearch=1"),
        ("IVF32,PQ4x4np,RFlat", "nprobe=9,k_factor_rf=4"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_search_is_as_if_the_index_had_the_settings_and_the_next_is_as_before(factory: str, text: str) -> None:
    index, queries = _filled(factory), _rows(40, 1)
    before = index.search(queries, 10)[1]
    expected = _set_for_good(factory, text)
    assert (before != expected).any()
    np.testing.assert_array_equal(FaissEngine(index, text, factory).search(queries, 10)[1], expected)
    np.testing.assert_array_equal(FaissEngine(index, "", factory).search(queries, 10)[1], before)


def test_behind_a_map_of_ids() -> None:
    mapped = faiss.IndexIDMap(faiss.index_factory(DIM, "IVF32,Flat"))
    mapped.train(_rows(3000))
    mapped.add_with_ids(_rows(3000), np.arange(3000) + 7)
    found = FaissEngine(mapped, "nprobe=7", "IDMap,IVF32,Flat").search(_rows(40, 1), 10)[1]
    np.testing.assert_array_equal(found - 7, _set_for_good("IVF32,Flat", "nprobe=7"))


def test_parallel_searches_have_their_own_settings() -> None:
    index, queries = _filled("IVF64,Flat"), _rows(4, 1)
    texts = [f"nprobe={n}" for n in (1, 4, 16, 64)]
    expected = {text: _set_for_good("IVF64,Flat", text)[:4] for text in texts}

    def search(text: str) -> bool:
        return bool((FaissEngine(index, text, "IVF64,Flat").search(queries, 10)[1] == expected[text]).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(search, texts * 50))


@pytest.mark.parametrize(
    ("factory", "text", "message"),
    [
        ("IVF32,Flat", "efSearch=3", r"cannot be set on index 'IVF32,Flat': it has no 'efSearch'\. Expected e\.g\."),
        ("IVF32,Flat", "nprobe=4,quantizer_efSearch=3", "it has no 'quantizer_efSearch'"),
        ("IVF32,Flat", "nprobe=0", "search_params 'nprobe' is 0, expected a whole number of at least 1"),
        ("HNSW8", "efSearch=2.5", "search_params 'efSearch' is 2.5, expected a whole number"),
        ("IVF32,PQ4x8", "ht=14", "it has no 'ht'"),
        ("SQ8", "nprobe=3", "it has no 'nprobe'"),
        ("HNSW8", "efSearch", "'efSearch' are not understood, expected e.g. 'nprobe=16'"),
    ],
)
def test_wrong_settings_are_told(factory: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search_parameters(faiss.index_factory(DIM, factory), text, factory)


def test_a_list_of_settings_is_read() -> None:
    assert parse_search_params("nprobe=16, max_codes=5,k_factor_rf=1.5") == {
        "nprobe": 16,
        "max_codes": 5,
        "k_factor_rf": 1.5,
    }
    assert parse_search_params("") == {}


@pytest.mark.parametrize(
    ("factory", "text", "as_far_as_there_is"),
    [
        ("HNSW8", "efSearch=1000000000000", "efSearch=3000"),
        ("IVF32,Flat", f"nprobe=1{'0' * 30},max_codes=1{'0' * 30}", "nprobe=32"),
        ("IVF32_HNSW8,Flat", "nprobe=4,quantizer_efSearch=1000000000", "nprobe=4,quantizer_efSearch=32"),
        ("PQ4x4,RFlat", "k_factor_rf=1e300", "k_factor_rf=300"),
    ],
)
def test_more_than_there_is_takes_no_more_memory(factory: str, text: str, as_far_as_there_is: str) -> None:
    """faiss would reserve gigabytes for it, or end in an error of its own."""
    index, queries = _filled(factory), _rows(5, 1)
    found, expected = (FaissEngine(index, t, factory).search(queries, 10)[1] for t in (text, as_far_as_there_is))
    np.testing.assert_array_equal(found, expected)
