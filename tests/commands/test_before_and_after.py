"""A re-ranker's metrics beside the first stage's, from one validation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from oml.metrics.embeddings import EmbeddingMetrics, calc_retrieval_metrics_rr
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.toy_retrieval import N, embeddings_of, frame, labelled
from oml_vit_ext.commands import before_and_after

CFG = OmegaConf.create({"metric_args": {"cmc_top_k": [1, 2], "map_top_k": [2], "precision_top_k": []}})


def test_the_first_stage_is_what_the_embeddings_alone_give(monkeypatch: pytest.MonkeyPatch, capsys):
    dataset, embeddings = labelled(frame()), embeddings_of()
    metric = EmbeddingMetrics(dataset=dataset, cmc_top_k=(1, 2), map_top_k=(2,), precision_top_k=(), verbose=False)
    metric.setup(num_samples=N)
    metric.update(embeddings, indices=list(range(N)))
    found = before_and_after.first_stage_metrics(metric, CFG)
    retrieved = RetrievalResults.from_embeddings(embeddings, dataset, n_items=2)
    expected = calc_retrieval_metrics_rr(retrieved, cmc_top_k=(1, 2), map_top_k=(2,), precision_top_k=())
    assert found == {name: {k: float(v) for k, v in expected[name].items()} for name in ("cmc", "map")}

    reranked = {"OVERALL": {"cmc": {1: torch.tensor(0.25), 2: torch.tensor(0.5)}, "map": {2: torch.tensor(0.125)}}}
    metric.metrics, metric.postprocessor = reranked, SimpleNamespace(top_n=2)
    metric.retrieval_results = SimpleNamespace(retrieved_ids=range(N))
    trainer = SimpleNamespace(is_global_zero=True, callbacks=[_Callback(metric)])
    monkeypatch.setattr(before_and_after, "extractor_validation_pipeline", lambda cfg: (trainer, {}))
    monkeypatch.setattr(before_and_after, "MetricValCallback", _Callback)
    before_and_after.validate_and_compare(CFG)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [f"{N}", "queries,", "top", "2", "re-ranked"] in lines and [
        "re-ranked",
        "0.2500",
        "0.5000",
        "0.1250",
    ] in lines


class _Callback:
    def __init__(self, metric: EmbeddingMetrics) -> None:
        self.metric = metric
