"""Threads that search and re-rank at the same time find what one finds after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import oml.retrieval.retrieval_results as oml_results
import pytest
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.photos import small_dataset, small_model, some_results
from helpers.random_index import add_numbers, random_index, random_rows
from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.reranking import STIRReranker
from oml_vit_ext.retrieval import SearchIndex, faiss_search, retrieve, search_shards

N_THREADS = 8


def same_in_threads(search: Callable[[Any], Any], arguments: list[Any]) -> None:
    expected = [search(argument) for argument in arguments]
    with ThreadPoolExecutor(N_THREADS) as threads:
        assert list(threads.map(search, arguments)) == expected


def as_lists(results: RetrievalResults) -> tuple[list[list[int]], list[list[float]]]:
    return [ids.tolist() for ids in results.retrieved_ids], [found.tolist() for found in results.distances]


@pytest.mark.parametrize(
    ("factory", "mmap", "params"),
    [
        ("Flat", False, [""]),
        ("Flat", True, [""]),
        ("HNSW8", False, ["", "efSearch=64"]),
        ("IVF16,Flat", False, ["", "nprobe=16"]),
        ("IVF16,Flat", True, ["", "nprobe=4"]),
    ],
)
def test_search(tmp_path: Path, factory: str, mmap: bool, params: list[str]):
    random_index(tmp_path, factory, 700).save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index", mmap=mmap)

    def search(number: int) -> Any:
        queries = random_rows(np.arange(number, number + 3))
        return index.search(queries, 1 + number % 5, search_params=params[number % len(params)])

    same_in_threads(search, list(range(60)))


def test_search_over_shards(tmp_path: Path):
    shards = [random_index(tmp_path, factory, 300) for factory in ("Flat", "HNSW8")]
    same_in_threads(lambda i: search_shards(shards, random_rows(np.array([i])), 4), list(range(30)))


def test_retrieve():
    dataset, embeddings = labelled(frame()), embeddings_of()
    same_in_threads(lambda k: as_lists(retrieve(embeddings, dataset, n_items=k)), [3, 5, 7] * 8)


def test_faiss_search():
    """Blocks of other threads begin and end meanwhile, with other settings."""
    dataset, embeddings = labelled(frame()), embeddings_of()
    functions = (oml_results.batched_knn, oml_results.batched_knn_qg)
    settings = [{}, {"index": "IVF8,Flat"}, {"index": "IVF8,Flat", "search_params": "nprobe=8"}, None]

    def search(how: dict[str, str] | None) -> Any:
        if how is None:  # OML's own search, or whichever block of another thread is there
            return as_lists(RetrievalResults.from_embeddings(embeddings, dataset, n_items=1)) and None
        with faiss_search(**how):
            return as_lists(RetrievalResults.from_embeddings(embeddings, dataset, n_items=5))

    same_in_threads(search, settings * 8)
    assert (oml_results.batched_knn, oml_results.batched_knn_qg) == functions


def test_stir_reranker(tmp_path: Path):
    model, dataset = small_model(), small_dataset(tmp_path)
    results = some_results(dataset)
    rerankers = [STIRReranker(n, model, num_workers=0, batch_size=4, verbose=False) for n in (2, 3)]
    same_in_threads(lambda i: as_lists(rerankers[i % 2].process(results, dataset)), list(range(8)))


@pytest.mark.parametrize("factory", ["Flat", "HNSW8"])
def test_searches_beside_changes_and_saves_of_one_index(tmp_path: Path, factory: str):
    """Each search is of one state: what it finds is where it says, and no memory is read while it grows."""
    index = random_index(tmp_path, factory, 600)
    index.save(tmp_path / "index")
    wrong: list[Any] = []
    changed = threading.Event()

    def search(number: int) -> None:
        query = random_rows(np.array([number]))
        while not changed.is_set():
            for hit in index.search(query, 3)[0]:
                distance = np.linalg.norm(random_rows(np.array([int(hit.path[:6])])) - query)
                if abs(distance - hit.distance) > 1e-3:
                    wrong.append((hit, distance))

    def change(first: int) -> None:
        for start in range(first, first + 100, 20):
            add_numbers(index, np.arange(start, start + 20))
            index.remove([f"{number:06d}.png" for number in range(start, start + 5)])
            index.save()

    with ThreadPoolExecutor(5) as threads:
        searches = [threads.submit(search, number) for number in range(3)]
        changes = [threads.submit(change, first) for first in (1_000, 2_000)]
        try:
            for task in changes:
                task.result()
        finally:
            changed.set()
        for task in searches:
            task.result()
    assert wrong == [] and len(index) == 600 + 2 * 75
    numbers = index.images.path.str[:6].astype(int).to_numpy()
    assert len(set(numbers)) == len(numbers)
    np.testing.assert_array_equal(index.embeddings, random_rows(numbers))
    np.testing.assert_array_equal(SearchIndex.load(tmp_path / "index").embeddings, index.embeddings)
