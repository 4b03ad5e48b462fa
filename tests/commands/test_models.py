"""Which model embeds the images of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import ROOT
from oml_vit_ext.commands.models import embedder_of, reranker_of


def test_two_models_are_one_too_many():
    with pytest.raises(ValueError, match="expected one of them"):
        embedder_of(Path("run"), "irt/predict_sop", [])


def test_a_folder_without_a_training_is_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a run"):
        embedder_of(tmp_path, None, [])


def test_a_reranker_of_a_run_and_of_a_config_whose_fusion_is_for_other_photos(reranker_run: Path, tmp_path: Path):
    reranker, transforms = reranker_of(str(reranker_run), [], 7, "cpu", tmp_path)
    assert reranker.top_n == 7 and transforms is not None
    for root, fusion in ((ROOT / "examples/photos", True), (tmp_path, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            patch.setattr("oml.registry.postprocessors.get_postprocessor_by_cfg", seen := Recorder())
            reranker_of("stir/validate_reranker_photos", ["checkpoint=x", "first_stage_checkpoint=y"], 5, "cpu", root)
        assert bool(seen.args["fusion"]) is fusion and seen.args["top_n"] == 5


class Recorder:
    """In the place of a constructor: what it was given."""

    def __call__(self, cfg: dict[str, Any]) -> Any:
        self.args = cfg["args"]
        self.model = torch.nn.Identity()
        return self


def test_a_config_of_prediction_is_built_with_overrides():
    tiny = ["irt/variant=irt_o", "pretrained=null", "arch=vit_tiny_patch16_224", "+timm_args.depth=1"]
    embedder = embedder_of(None, "irt/predict_sop", [*tiny, "images.crop=64", "images.test_resize=64"], device="cpu")
    assert embedder.fingerprint.width == 192 and embedder.config["transforms"]["args"]["crop_size"] == 64
