"""Validates a re-ranker and shows the first stage's metrics beside it, from one pass over the images."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from oml.lightning.callbacks.metric import MetricValCallback
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import EmbeddingMetrics, calc_retrieval_metrics_rr

from oml_vit_ext.commands.figures import SHOWN, Figures, reduced, table
from oml_vit_ext.common.messages import counted
from oml_vit_ext.runs import items_for, retrieve_as_validated


def validate_and_compare(cfg: DictConfig) -> None:
    """Run OML's validation pipeline with the postprocessor of ``cfg``; print metrics without and with it."""
    trainer: Any = extractor_validation_pipeline(cfg)[0]
    if not trainer.is_global_zero:
        return
    metric: Any = next(c for c in trainer.callbacks if isinstance(c, MetricValCallback)).metric
    print(
        f"\n{counted(len(metric.retrieval_results.retrieved_ids), 'query', 'queries')}, top "
        f"{metric.postprocessor.top_n} re-ranked"
    )
    rows = {"first stage": first_stage_metrics(metric, cfg), "re-ranked": reduced(metric.metrics["OVERALL"])}
    print(table(rows, n_to_find=len(metric.dataset.get_gallery_ids()) - 1))


def first_stage_metrics(metric: EmbeddingMetrics, cfg: DictConfig) -> Figures:
    """What the embeddings of a validated metric give before its postprocessor, from the items that this one got."""
    top_k = {f"{name}_top_k": getattr(metric, f"{name}_top_k") for name in SHOWN}
    embeddings: Any = metric.acc.storage[metric._acc_embeddings_key]
    dataset: Any = metric.dataset
    n_items = max(k for ks in top_k.values() for k in ks)
    top_n = items_for(metric.postprocessor, dataset)
    retrieved = retrieve_as_validated(embeddings, dataset, cfg, n_items, top_n=top_n)
    return reduced(calc_retrieval_metrics_rr(retrieved, verbose=False, **top_k))
