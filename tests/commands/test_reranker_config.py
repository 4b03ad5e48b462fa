"""What is done with a re-ranker's config before a pipeline gets it; missing checkpoints: tests/examples."""

from __future__ import annotations

from pathlib import Path

from helpers.configs import composed
from oml_vit_ext.commands.reranker_config import validation_of


def test_a_training_is_turned_into_the_validation_of_its_checkpoint():
    cfg = composed("stir/train_reranker_photos", "first_stage_checkpoint=first.pth", "bs=9")
    turned = validation_of(cfg, Path("best.ckpt"))
    assert turned.bs_val == 9 and turned.transforms_val == cfg.transforms_extraction
    pairwise = turned.postprocessor.args.pairwise_model.args
    assert pairwise.weights == "best.ckpt" and pairwise.extractor.args.weights is None
    assert cfg.postprocessor.args.pairwise_model.args.weights is None, "the training's config stays"
