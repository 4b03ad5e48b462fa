"""OML's metric and pipelines hand the embeddings to postprocessors that ask for them, and to nobody else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics

from helpers.toy_retrieval import N, embeddings_of, frame, labelled, sequences
from helpers.trainings import validation_config
from oml_vit_ext.oml_patches.postprocessor_embeddings import hand_over_in
from oml_vit_ext.reranking import KReciprocalReranker, QueryExpansion
from oml_vit_ext.retrieval import retrieve


def _metric(postprocessor: Any, **more: Any) -> EmbeddingMetrics:
    dataset = labelled(frame("separate"))
    dataset.extra_data["sequence"] = sequences()
    metric = EmbeddingMetrics(dataset, cmc_top_k=(1, 5), map_top_k=(5,), postprocessor=postprocessor, verbose=False)
    metric.setup(N)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for batch in order.split(40):  # in any order, as loaders of several processes give them
        metric.update(embeddings_of()[batch], batch.tolist())
    return metric


@pytest.mark.parametrize("postprocessor", [QueryExpansion(3), KReciprocalReranker(5, 2)])
def test_the_metric_gives_what_process_gives(postprocessor: Any):
    metric = _metric(postprocessor)
    metric.compute_metrics()
    expected = postprocessor.process(
        retrieve(embeddings_of(), metric.dataset, n_items=5), metric.dataset, embeddings=embeddings_of()
    )
    found = metric.retrieval_results
    assert [ids.tolist() for ids in found.retrieved_ids] == [ids.tolist() for ids in expected.retrieved_ids]
    assert metric.postprocessor is postprocessor


class Plain(IRetrievalPostprocessor):
    """One of OML's kind: whatever else it is given would be an error."""

    top_n = 7

    def process(self, rr: Any, dataset: Any) -> Any:
        self.n_retrieved = rr.n_retrieved_items
        return rr


def test_others_are_called_as_ever():
    plain = Plain()
    metric = _metric(plain)
    metric.compute_metrics()
    assert plain.n_retrieved == 7 and metric.postprocessor is plain


def test_after_an_error_the_metric_has_its_postprocessor_back():
    class Fails(QueryExpansion):
        def process(self, rr: Any, dataset: Any, embeddings: Any = None) -> Any:
            raise ZeroDivisionError

    fails = Fails()
    metric = _metric(fails)
    with pytest.raises(ZeroDivisionError):
        metric.compute_metrics()
    assert metric.postprocessor is fails


def test_it_is_done_once():
    class Metric:
        def _compute_retrieval_results(self) -> None: ...

    module: Any = SimpleNamespace(EmbeddingMetrics=Metric)
    hand_over_in(module)
    once = Metric._compute_retrieval_results
    hand_over_in(module)
    assert Metric._compute_retrieval_results is once


def test_the_validation_pipeline_from_yaml(demo_slice: Path, in_tmp_path: Path):
    def validate(postprocessor: Any) -> dict[str, float]:
        torch.manual_seed(0)
        cfg = validation_config(demo_slice, postprocessor=postprocessor)
        return extractor_validation_pipeline(cfg)[1][0]

    assert (pd.read_csv(demo_slice / "df.csv").split == "validation").sum() > 10
    links = [{"name": "query_expansion", "args": {"n": 5, "alpha": 0}}, {"name": "k_reciprocal", "args": {"k1": 4}}]
    plain, chained = validate(None), validate({"name": "chain", "args": {"postprocessors": links}})
    assert plain.keys() == chained.keys() and plain != chained
