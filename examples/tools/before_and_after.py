"""Validates a re-ranker and shows the first stage's metrics beside it, from one pass over the images."""

from typing import Any

import pandas as pd
from omegaconf import DictConfig
from oml.lightning.callbacks.metric import MetricValCallback
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics, calc_retrieval_metrics_rr
from oml.retrieval.retrieval_results import RetrievalResults

_SHOWN = {"cmc": "CMC", "map": "MAP", "precision": "P"}
Metrics = dict[str, dict[int, float]]


def validate_and_compare(cfg: DictConfig) -> None:
    """Run OML's validation pipeline with the postprocessor of ``cfg``; print metrics without and with it."""
    trainer, _ = extractor_validation_pipeline(cfg)
    if not trainer.is_global_zero:
        return
    metric = next(c for c in trainer.callbacks if isinstance(c, MetricValCallback)).metric
    print(f"\n{len(metric.retrieval_results.retrieved_ids)} queries, top {metric.postprocessor.top_n} re-ranked")
    print(table({"first stage": first_stage_metrics(metric), "re-ranked": _reduced(metric.metrics["OVERALL"])}))


def first_stage_metrics(metric: EmbeddingMetrics) -> Metrics:
    """What the embeddings of a validated metric give before any postprocessor."""
    top_k = {f"{name}_top_k": getattr(metric, f"{name}_top_k") for name in _SHOWN}
    retrieved = RetrievalResults.from_embeddings(
        embeddings=metric.acc.storage[metric._acc_embeddings_key],
        dataset=metric.dataset,
        n_items=max(k for ks in top_k.values() for k in ks),
    )
    return _reduced(calc_retrieval_metrics_rr(retrieved, verbose=False, **top_k))


def table(rows: dict[str, Metrics]) -> str:
    """One line per row, one column per metric."""
    lines = [
        {f"{_SHOWN[n]}@{k}": value for n, of in metrics.items() for k, value in of.items()} for metrics in rows.values()
    ]
    return pd.DataFrame(lines, index=list(rows)).to_string(float_format="{:.4f}".format)


def _reduced(metrics: Any) -> Metrics:
    return {name: {k: float(v) for k, v in metrics[name].items()} for name in _SHOWN if name in metrics}
