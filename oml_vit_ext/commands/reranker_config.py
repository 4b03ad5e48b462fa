"""What the re-ranker's commands do with a config before they hand it to OML's pipelines."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf, open_dict
from timm.models import is_model_pretrained

from oml_vit_ext.extractors import packaged_weights
from oml_vit_ext.runs import best_checkpoint

_WANTED = {
    "first_stage_checkpoint": "the checkpoint of stir/train_first_stage_* or irt/train_*, or a timm tag",
    "checkpoint": "the checkpoint of stir/train_reranker_*",
}


def check_checkpoints(cfg: DictConfig) -> None:
    """Before anything is loaded.

    Raises:
        ValueError: A checkpoint is not given, or not there.
    """
    for key, wanted in _WANTED.items():
        if key not in cfg.keys():  # noqa: SIM118  (`in cfg` is false for a value that is missing)
            continue
        expected = f"expected {wanted}: {key}=<its run folder>/checkpoints/best.ckpt"
        if OmegaConf.is_missing(cfg, key) or not cfg[key]:
            raise ValueError(f"{key} is not set, {expected}")
        path = Path(to_absolute_path(cfg[key]))
        is_tag = key == "first_stage_checkpoint" and (
            cfg[key] == packaged_weights.NAME or is_model_pretrained(cfg[key])
        )
        if not path.is_file() and not is_tag:
            raise ValueError(f"{key}: there is no file {path}, {expected}")


def best_of(run: Path, resume: str | None) -> Path:
    """The best checkpoint of the run of a training that has just ended.

    Raises:
        ValueError: It has written none.
    """
    found = best_checkpoint(run)
    if found is None:
        why = f"the one that {resume!r} holds was finished already" if resume else "valid_period was never reached"
        raise ValueError(
            f"The training has written no checkpoint to {run / 'checkpoints'}: {why}. Set a larger max_epochs to "
            f"train on, or validate that checkpoint: oml-vit-ext validate-reranker ... checkpoint={resume or 'FILE'}"
        )
    return found


def validation_of(cfg: DictConfig, checkpoint: Path) -> DictConfig:
    """The config of a re-ranker's training, turned into that of validating ``checkpoint``."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.transforms_val = cfg.transforms_extraction
        cfg.bs_val = cfg.batch_size_inference
        pairwise_model = cfg.postprocessor.args.pairwise_model.args
        pairwise_model.weights = str(checkpoint)
        pairwise_model.extractor.args.weights = None
    return cfg
