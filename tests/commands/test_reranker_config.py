"""What is done with a re-ranker's config before a pipeline gets it; missing checkpoints: tests/examples."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.configs import composed
from oml_vit_ext.commands.reranker_config import best_of, validation_of


def test_a_training_is_turned_into_the_validation_of_its_checkpoint():
    cfg = composed("stir/train_reranker_photos", "first_stage_checkpoint=first.pth", "bs=9")
    turned = validation_of(cfg, Path("best.ckpt"))
    assert turned.bs_val == 9 and turned.transforms_val == cfg.transforms_extraction
    pairwise = turned.postprocessor.args.pairwise_model.args
    assert pairwise.weights == "best.ckpt" and pairwise.extractor.args.weights is None
    assert cfg.postprocessor.args.pairwise_model.args.weights is None, "the training's config stays"


def test_the_best_checkpoint_or_one_sentence_if_nothing_was_trained(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no checkpoint to .*: the one that 'run/last.ckpt' holds was finished"):
        best_of(tmp_path, "run/last.ckpt")
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    for name in ("best.ckpt", "best-v1.ckpt", "last.ckpt"):
        (kept / name).touch()
    os.utime(kept / "best-v1.ckpt", (1, 1))
    assert best_of(tmp_path, None) == kept / "best.ckpt"
