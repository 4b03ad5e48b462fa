"""IRT on the bundled pictures through OML's pipelines: ``irt/train_demo`` and ``irt/validate_demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from oml.lightning.callbacks.metric import MetricValCallback
from oml.lightning.pipelines.train import extractor_training_pipeline
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from torch import Tensor

from tools.absolute_paths import with_absolute_paths
from tools.folders import in_folder
from tools.screen import say, without_config_dump


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


def train(variant: str, overrides: list[str], folder: Path) -> Path:
    """Train one variant in ``folder``; returns its checkpoint."""
    cfg = with_absolute_paths(compose("irt/train_demo", [f"irt/variant={variant}", *overrides]))
    say(f"Training {variant.upper()}: {cfg.iterations} iterations")
    best = folder / "checkpoints" / "best.ckpt"
    for of_an_earlier_demo in (best, best.with_name("last.ckpt")):  # they would be kept under other names
        of_an_earlier_demo.unlink(missing_ok=True)
    with in_folder(folder), without_config_dump():
        extractor_training_pipeline(cfg)
    return best


def validate(name: str, overrides: list[str], folder: Path) -> Validated:
    """Validate in ``folder`` and collect the figures."""
    cfg = with_absolute_paths(compose("irt/validate_demo", overrides))
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
