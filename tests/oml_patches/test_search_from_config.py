"""The key ``faiss_search`` of a config: which searches go through faiss, and that metrics are the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import oml.retrieval.retrieval_results as oml_results
import pytest
import torch
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics

from helpers.toy_retrieval import N, embeddings_of, frame, labelled
from helpers.trainings import validation_config
from oml_vit_ext.oml_patches import search_from_config
from oml_vit_ext.oml_patches.search_from_config import LEAST_PAIRS, read_key_in, search_of
from oml_vit_ext.retrieval import faiss_search

OML_FUNCTIONS = (oml_results.batched_knn, oml_results.batched_knn_qg)


@pytest.fixture()
def through_faiss(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of what faiss was asked for; afterwards OML's functions are back, and no config waits."""
    asked: list[int] = []
    search = faiss.knn
    monkeypatch.setattr(faiss, "knn", lambda q, x, k: asked.append(k) or search(q, x, k))
    monkeypatch.setattr(search_from_config, "_has_told", [])
    yield asked
    assert (oml_results.batched_knn, oml_results.batched_knn_qg) == OML_FUNCTIONS
    assert search_from_config._waiting == []


def _pipeline() -> Any:
    """The part of a pipeline that counts here: it reads its config, then makes its metric."""
    pipeline = SimpleNamespace(dictconfig_to_dict=dict, __name__="pipeline")
    read_key_in(pipeline)
    return pipeline


def _metrics(cfg: dict[str, Any] | None) -> dict[str, Any]:
    if cfg is not None:
        _pipeline().dictconfig_to_dict(cfg)
    metric = EmbeddingMetrics(labelled(frame()), cmc_top_k=(1, 5), map_top_k=(5,), verbose=False)
    metric.setup(N)
    metric.update(embeddings_of(), list(range(N)))
    return metric.compute_metrics()["OVERALL"]


@pytest.mark.parametrize(
    ("cfg", "n_searches"),
    [
        (None, 0),  # no pipeline
        ({}, 0),  # auto, and small
        ({"faiss_search": "auto"}, 0),
        ({"faiss_search": False}, 0),
        ({"faiss_search": True}, 1),
        ({"faiss_search": {"index": "Flat", "memory_mb": 64}}, 1),
        ({"faiss_search": {"index": "IVF4,Flat", "search_params": "nprobe=4"}}, 0),  # not by faiss.knn
    ],
)
def test_the_key_says_how_to_search(cfg: dict | None, n_searches: int, through_faiss: list[int]):
    expected = _metrics(None)
    found = _metrics(cfg)
    assert len(through_faiss) == n_searches
    for name, values in expected.items():
        for k, value in values.items():
            torch.testing.assert_close(torch.as_tensor(found[name][k]), torch.as_tensor(value))


def test_auto_takes_large_searches_and_tells_it_once(
    through_faiss: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(search_from_config, "LEAST_PAIRS", N * N)
    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        for _ in range(2):
            _metrics({})
    assert len(through_faiss) == 2
    told = [record.getMessage() for record in caplog.records if "through faiss" in record.getMessage()]
    assert len(told) == 1 and "150 queries x 150 gallery images" in told[0] and "faiss_search: false" in told[0]
    monkeypatch.setattr(search_from_config, "LEAST_PAIRS", N * N + 1)
    _metrics({})
    assert len(through_faiss) == 2


def test_auto_leaves_a_block_of_the_user_as_it_is(through_faiss: list[int]):
    with faiss_search("IVF4,Flat", search_params="nprobe=4"):
        _metrics({})
    assert not through_faiss
    with faiss_search("IVF4,Flat", search_params="nprobe=4"):
        _metrics({"faiss_search": True})  # said explicitly: the inner one counts
    assert len(through_faiss) == 1


def test_a_metric_made_later_searches_as_ever(through_faiss: list[int]):
    _metrics({"faiss_search": True})
    assert len(through_faiss) == 1
    _metrics(None)
    assert len(through_faiss) == 1


def test_embeddings_on_a_gpu_are_left_to_oml():
    search, on_gpu = search_of("auto"), SimpleNamespace(device=torch.device("cuda"))
    assert search.takes(2_000, LEAST_PAIRS // 2_000, embeddings_of())
    assert not search.takes(2_000, LEAST_PAIRS // 2_000 - 1, embeddings_of())
    assert not search.takes(10**5, 10**5, on_gpu) and search_of(True).takes(1, 1, on_gpu)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "yes",
            "faiss_search is 'yes', expected auto, true, false, or arguments of faiss_search: index, search_params",
        ),
        (3, "faiss_search is 3, expected auto"),
        ({"indx": "Flat"}, r"argument of faiss_search: 'indx': did you mean 'index'"),
        ({"memory_mb": 0}, "memory_mb is 0, expected a positive number"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_computed(setting: Any, message: str):
    with pytest.raises(ValueError, match=message):
        search_of(setting)


def test_the_validation_pipeline_from_yaml(
    demo_slice: Path, in_tmp_path: Path, through_faiss: list[int], capsys: pytest.CaptureFixture
):
    def validate(**more: Any) -> dict[str, float]:
        torch.manual_seed(0)
        cfg = validation_config(demo_slice, **more)
        return extractor_validation_pipeline(cfg)[1][0]

    expected = validate(faiss_search=False)
    assert not through_faiss
    assert validate(faiss_search=True) == expected
    assert len(through_faiss) == 1
