"""The demo's models through OML's pipelines: what IRT's and STIR's configs of a bundled data set give."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig
from oml.lightning.callbacks.metric import MetricValCallback
from oml.lightning.pipelines.train import extractor_training_pipeline
from oml.lightning.pipelines.train_postprocessor import postprocessor_training_pipeline
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.registry.models import get_extractor_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.commands.absolute_paths import with_absolute_paths
from oml_vit_ext.commands.retrieved_images import RetrievedImages
from oml_vit_ext.commands.screen import say, without_config_dump
from oml_vit_ext.reranking import Fusion
from tools.folders import in_folder


@dataclass
class Validated:
    """The figures of a model, and what pictures of it need."""

    name: str
    cmc_1: float
    cmc_10: float
    map_5: float
    dims_90: int  # dimensions that carry 90 % of the variance
    embeddings: Tensor  # (images, D)
    retrieved: list[list[int]]  # per query, nearest first
    training_s: float = 0.0


@dataclass
class Reranked:
    """A first stage's results without and with a re-ranker."""

    images: RetrievedImages
    before: RetrievalResults
    after: dict[str, RetrievalResults]  # by what was done
    fusion: Fusion
    training_s: float


def train(variant: str, overrides: list[str], folder: Path, data: str = "demo") -> Path:
    """Train one variant of ``irt/train_<data>`` in ``folder``; returns its checkpoint."""
    cfg = with_absolute_paths(compose(f"irt/train_{data}", [f"irt/variant={variant}", *overrides]))
    say(f"Training {variant.upper()}: {cfg.iterations} iterations")
    best = fresh_checkpoint(folder)
    with in_folder(folder), without_config_dump():
        extractor_training_pipeline(cfg)
    return best


def validate(name: str, overrides: list[str], folder: Path, data: str = "demo") -> Validated:
    """Validate with ``irt/validate_<data>`` in ``folder`` and collect the figures."""
    cfg = with_absolute_paths(compose(f"irt/validate_{data}", overrides))
    say(f"Validating {name}")
    with in_folder(folder), without_config_dump():
        trainer, logs = extractor_validation_pipeline(cfg)
    metric = next(c for c in trainer.callbacks if isinstance(c, MetricValCallback)).metric
    embeddings = metric.acc.storage[metric._acc_embeddings_key]
    figures = {key.removeprefix("OVERALL/"): value for key, value in logs[0].items()}
    return Validated(
        name=name,
        cmc_1=figures["cmc/1"],
        cmc_10=figures["cmc/10"],
        map_5=figures["map/5"],
        dims_90=round(figures["pcf/0.9"] * embeddings.shape[1]),
        embeddings=embeddings,
        retrieved=[ids.tolist() for ids in metric.retrieval_results.retrieved_ids],
    )


def train_reranker(cfg: DictConfig, folder: Path) -> Path:
    """Train a pair model by ``stir/train_reranker_photos`` in ``folder``; returns its checkpoint."""
    say(f"Training STIR: {cfg.max_epochs} epochs")
    best = fresh_checkpoint(folder)
    with in_folder(folder), without_config_dump():
        postprocessor_training_pipeline(with_absolute_paths(cfg))
    return best


def rerank(training: DictConfig, validation: DictConfig, folder: Path) -> Reranked:
    """Train a pair model in ``folder``, then re-rank every validation query with it, alone and with fusion.

    Args:
        training: As ``stir/train_reranker_photos``.
        validation: As ``stir/validate_reranker_photos``, with a ``fusion``; it gets the checkpoint.
        folder: Of the checkpoint.
    """
    started = time.perf_counter()
    best = train_reranker(training, folder)
    training_s = time.perf_counter() - started

    say("Re-ranking")
    validation.checkpoint = str(best)
    validation.scores_file = str(folder / "scores.npz")  # the second pass takes the first one's
    validation = with_absolute_paths(validation)
    images = RetrievedImages(validation)
    before = images.retrieve(get_extractor_by_cfg(validation.extractor).eval(), n_items=10)
    reranker = get_postprocessor_by_cfg(validation.postprocessor)
    reranker.model.eval()
    fusion, reranker.fusion = reranker.fusion, None
    alone = reranker.process(before, images.dataset)
    reranker.fusion = fusion
    fused = reranker.process(before, images.dataset)
    return Reranked(images, before, {"STIR alone": alone, "STIR, fused": fused}, fusion, training_s)


def quality(results: RetrievalResults) -> dict[str, float]:
    found = calc_retrieval_metrics_rr(results, cmc_top_k=(1, 10), map_top_k=(5,), precision_top_k=(), verbose=False)
    return {
        "cmc_1": float(found["cmc"][1]),
        "cmc_10": float(found["cmc"][10]),
        "map_5": float(found["map"][5]),
    }


def fresh_checkpoint(folder: Path) -> Path:
    """Where Lightning will write the best model: it would keep an older one and write ``best-v1.ckpt``."""
    best = folder / "checkpoints" / "best.ckpt"
    best.unlink(missing_ok=True)
    return best
