"""Photos under two labels: searches in the order of OML's validation, whatever its depth."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics, calc_retrieval_metrics_rr
from oml.registry.models import get_extractor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.runs import written_down
from helpers.toy_retrieval import N, embeddings_of, frame, labelled
from helpers.trainings import validation_config
from oml_vit_ext.pictures.report import report_of_run
from oml_vit_ext.retrieval import faiss_search
from oml_vit_ext.runs import retrieve_as_validated
from oml_vit_ext.runs.validated_search import continued

LABELS = frame("separate")
TWICE = embeddings_of()[torch.arange(N) // 2]  # neighbours in the frame are one photo, mostly under two labels
DATASET = labelled(LABELS)


class Keeps(IRetrievalPostprocessor):
    """A postprocessor that changes nothing."""

    def __init__(self, top_n: int) -> None:
        self.top_n = top_n

    def process(self, rr: RetrievalResults, dataset: Any) -> RetrievalResults:
        return rr


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("ranks", [(1,), (1, 3), (1, 40)])
@pytest.mark.parametrize("n_items", [1, 10, 200])
@pytest.mark.parametrize("top_n", [None, 30])
def test_its_metrics_are_those_of_omls_metric(search: bool, ranks: tuple[int, ...], n_items: int, top_n: int | None):
    args: dict[str, Any] = {"cmc_top_k": ranks, "map_top_k": (), "precision_top_k": ()}
    metric = EmbeddingMetrics(
        dataset=DATASET, pcf_variance=(), verbose=False, postprocessor=top_n and Keeps(top_n), **args
    )
    metric.setup(num_samples=N)
    metric.update(TWICE, indices=list(range(N)))
    if search:
        with faiss_search():
            expected = metric.compute_metrics()["OVERALL"]["cmc"]
    else:
        expected = metric.compute_metrics()["OVERALL"]["cmc"]
    config = {"metric_args": args, "faiss_search": search}
    found = retrieve_as_validated(TWICE, DATASET, config, n_items, top_n=top_n or 1)
    small = [k for k in ranks if k <= n_items]
    of_found = calc_retrieval_metrics_rr(found, cmc_top_k=tuple(small), map_top_k=(), precision_top_k=(), verbose=False)
    assert {k: float(of_found["cmc"][k]) for k in small} == {k: float(expected[k]) for k in small}
    assert found.n_retrieved_items == min(n_items, int(LABELS.is_gallery.sum()))


def test_with_fmr_the_whole_gallery_is_asked_for_as_omls_metric_does():
    config = {"metric_args": {"cmc_top_k": (1,), "map_top_k": (), "precision_top_k": (), "fmr_vals": (0.1,)}}
    found = retrieve_as_validated(TWICE, DATASET, config, 5)
    whole = RetrievalResults.from_embeddings(TWICE, DATASET, n_items=int(LABELS.is_gallery.sum()))
    assert all(torch.equal(a, b[:5]) for a, b in zip(found.retrieved_ids, whole.retrieved_ids, strict=True))


def test_the_order_of_equals_is_not_omls_for_another_depth():
    """Else the test above could not fail."""
    one, many = (RetrievalResults.from_embeddings(TWICE, DATASET, n_items=n) for n in (1, 200))
    assert any(a[0] != b[0] for a, b in zip(one.retrieved_ids, many.retrieved_ids, strict=True))
    joined = continued(one, many)
    for first, longer, both in zip(one.retrieved_ids, many.retrieved_ids, joined.retrieved_ids, strict=True):
        assert both[0] == first[0] and sorted(both.tolist()) == sorted(longer.tolist())


@pytest.mark.parametrize("postprocessor", [None, {"name": "adaptive_thresholding", "args": {"n_std": 3}}])
def test_a_report_says_what_validate_says(
    postprocessor: dict[str, Any] | None, demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A postprocessor that does not say how many items it takes gets the whole gallery, and cuts by all of it."""
    monkeypatch.chdir(tmp_path)
    df = pd.read_csv(demo_slice / "df.csv")
    df = df[df.split == "validation"]
    labels = sorted(df.label.unique())
    other = df.assign(label=df.label.map(dict(zip(labels, [*labels[1:], labels[0]], strict=True))))
    both = pd.concat([df, other], ignore_index=True)
    both["is_query"], both["is_gallery"] = both.index % 3 == 0, both.index % 3 != 0
    both["path"] = both["path"].map(lambda path: str(demo_slice / path))
    both.to_csv(tmp_path / "df.csv", index=False)
    cfg = deepcopy(validation_config(tmp_path, postprocessor=postprocessor))
    cfg["metric_args"] = {"cmc_top_k": [1, 2], "map_top_k": [1], "precision_top_k": [], "pcf_variance": []}
    torch.save(get_extractor_by_cfg(cfg["extractor"]).state_dict(), tmp_path / "model.pth")
    cfg["extractor"]["args"]["weights"] = str(tmp_path / "model.pth")
    logs = extractor_validation_pipeline(cfg)[1][0]
    written_down(cfg, tmp_path / "run", tmp_path)
    report = report_of_run(tmp_path / "run", n_queries=50, device="cpu")
    figures = dict(zip(report.metrics.header, report.metrics.rows[-1], strict=True))
    for rank in (1, 2):
        assert figures[f"CMC@{rank}"] == f"{float(logs[f'OVERALL/cmc/{rank}']):.3f}"
    hits = [query.stages[0].hits for query in report.queries]
    assert any(a[2] == b[2] for row in hits for a, b in pairwise(row)), "there are equals"
