"""``with faiss_search():`` OML's pipelines search through faiss, and afterwards as before."""

from __future__ import annotations

from pathlib import Path

import faiss
import oml.retrieval.retrieval_results as oml_results
import pandas as pd
import pytest
import torch
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.toy_retrieval import embeddings_of, frame, labelled, labels_only
from helpers.trainings import validation_config
from oml_vit_ext.retrieval import faiss_search

OML_FUNCTIONS = (oml_results.batched_knn, oml_results.batched_knn_qg)


@pytest.fixture(autouse=True)
def _is_undone():
    yield
    assert (oml_results.batched_knn, oml_results.batched_knn_qg) == OML_FUNCTIONS


@pytest.fixture()
def n_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what faiss was asked for."""
    asked: list[int] = []
    search = faiss.knn
    monkeypatch.setattr(faiss, "knn", lambda q, x, k: asked.append(k) or search(q, x, k))
    return asked


def _found(n_items: int = 5) -> list[list[int]]:
    rr = RetrievalResults.from_embeddings(embeddings_of(), labelled(frame()), n_items=n_items)
    return [ids.tolist() for ids in rr.retrieved_ids]


def test_the_oml_results_come_through_faiss_only_inside(n_searches: list[int]) -> None:
    before = _found()
    assert not n_searches
    with faiss_search():
        assert _found() == before
    assert n_searches == [6]  # five and the item itself
    assert _found() == before and len(n_searches) == 1


def test_separate_query_and_gallery_too(n_searches: list[int]) -> None:
    def search() -> list[list[int]]:
        rr = RetrievalResults.from_embeddings_qg(
            embeddings_of(9), embeddings_of(seed=1), labels_only(9), labels_only(150), 5, True
        )
        return [ids.tolist() for ids in rr.retrieved_ids]

    before = search()
    with faiss_search():
        assert search() == before
    assert n_searches == [5]


def test_it_is_undone_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), faiss_search():
        assert oml_results.batched_knn is not OML_FUNCTIONS[0]
        raise ZeroDivisionError
    assert oml_results.batched_knn is OML_FUNCTIONS[0]


def test_the_inner_block_counts_and_the_outer_one_comes_back(n_searches: list[int]) -> None:
    with faiss_search("Flat"):
        with faiss_search("IVF4,Flat", search_params="nprobe=4"):
            _found()
            assert not n_searches  # faiss.knn belongs to the exact search
        _found()
        assert len(n_searches) == 1


def test_one_object_can_be_entered_again_and_within_itself(n_searches: list[int]) -> None:
    search = faiss_search()
    with search:
        with search:
            _found()
        _found()
    with search:
        _found()
    assert len(n_searches) == 3


def test_blocks_may_end_in_another_order(n_searches: list[int]) -> None:
    first, second = faiss_search("IVF4,Flat"), faiss_search("Flat")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    _found()
    assert len(n_searches) == 1
    second.__exit__(None, None, None)


def test_a_wrong_index_is_told_when_the_oml_searches() -> None:
    with faiss_search("Flatt"), pytest.raises(ValueError, match="index 'Flatt' cannot be built"):
        _found()


def test_small_searches_are_left_to_oml_if_asked(n_searches: list[int]) -> None:
    for least_pairs, expected in ((150 * 150 + 1, 0), (150 * 150, 1), (0, 2)):
        before = _found()
        with faiss_search(least_pairs=least_pairs):
            assert _found() == before
        assert len(n_searches) == expected
    with faiss_search(least_pairs=9 * 150 + 1):
        RetrievalResults.from_embeddings_qg(
            embeddings_of(9), embeddings_of(seed=1), labels_only(9), labels_only(150), 5, False
        )
    assert len(n_searches) == 2
    with pytest.raises(ValueError, match="least_pairs is -1, expected a whole number of at least 0"):
        faiss_search(least_pairs=-1)


def test_metrics_are_the_same() -> None:
    def metrics() -> dict:
        metric = EmbeddingMetrics(labelled(frame()), cmc_top_k=(1, 5), map_top_k=(5,), fmr_vals=(0.1,), verbose=False)
        metric.setup(150)
        metric.update(embeddings_of(), list(range(150)))
        return metric.compute_metrics()["OVERALL"]

    expected = metrics()
    with faiss_search():
        got = metrics()
    for name, values in expected.items():
        for k, value in values.items():
            torch.testing.assert_close(torch.as_tensor(got[name][k]), torch.as_tensor(value))


def test_the_validation_pipeline_runs_through_it(
    demo_slice: Path, in_tmp_path: Path, n_searches: list[int], capsys: pytest.CaptureFixture
) -> None:
    cfg = validation_config(demo_slice)

    def validate() -> dict:
        torch.manual_seed(0)
        return extractor_validation_pipeline(cfg)[1][0]

    expected = validate()
    with faiss_search():
        assert validate() == expected
    n_validation = (pd.read_csv(demo_slice / "df.csv").split == "validation").sum()
    assert n_searches == [min(6, n_validation)]
