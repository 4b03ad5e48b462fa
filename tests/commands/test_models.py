"""Which model embeds the images of an index."""

from __future__ import annotations

from pathlib import Path

import pytest

from oml_vit_ext.commands.models import embedder_of


def test_two_models_are_one_too_many():
    with pytest.raises(ValueError, match="expected one of them"):
        embedder_of(Path("run"), "irt/predict_sop", [])


def test_a_folder_without_a_training_is_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a run"):
        embedder_of(tmp_path, None, [])


def test_a_config_of_prediction_is_built_with_overrides():
    tiny = ["irt/variant=irt_o", "pretrained=null", "arch=vit_tiny_patch16_224", "+timm_args.depth=1"]
    embedder = embedder_of(None, "irt/predict_sop", [*tiny, "images.crop=64", "images.test_resize=64"], device="cpu")
    assert embedder.fingerprint.width == 192 and embedder.config["transforms"]["args"]["crop_size"] == 64
