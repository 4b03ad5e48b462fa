"""What is said of tags and files of weights is what loading them shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from oml.models.meta.siamese import ConcatSiamese
from safetensors.torch import save_file
from torch import nn

from helpers import ROOT
from oml_vit_ext.extractors import ExtractorWithMomentum, HybridViTExtractor, IRTExtractor, fit_pca, save_pca
from oml_vit_ext.extractors.starting_points import STARTING_POINTS
from oml_vit_ext.extractors.zoo import describe, record


def _config(text: str | None) -> Any:
    assert text is not None
    return yaml.safe_load(text)


def test_a_tag_is_described_from_timms_own_config():
    text = str(describe("deit_small_patch16_224.fb_in1k"))
    for part in ("DeiT", "21.7 million", "12 blocks of width 384", "16 px", "224 px", "(0.485, ", "apache-2.0"):
        assert part in text
    args = _config(describe("vit_base_patch16_siglip_224.v2_webli").config)["extractor"]["args"]
    assert args["pooling"] == "map"
    assert "no CLS token, an attention pooling" in str(describe("vit_base_patch16_siglip_224.v2_webli"))


def test_a_tag_that_is_no_starting_point():
    known = record("vit_tiny_patch16_224.augreg_in21k")
    assert (known["width"], known["patch"], known["size"], known["mean"]) == (192, 16, 224, [0.5, 0.5, 0.5])
    assert _config(known["config"])["extractor"]["name"] == "irt"


def test_an_architecture_names_its_weights():
    assert "vit_tiny_patch16_224.augreg_in21k" in describe("vit_tiny_patch16_224").facts["weights"]


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("deit_smal_patch16_224.fb_in1k", ValueError, "did you mean 'deit_small_patch16_224.fb_in1k'"),
        ("deit_small_patch16_224.fb", ValueError, "pretrained tag 'deit_small_patch16_224.fb'.*fb_in1k"),
        ("resnet50.a1_in1k", ValueError, "expected a plain vision transformer"),
        ("nothing/there.pth", FileNotFoundError, "there is no such file"),
    ],
)
def test_what_is_neither(name: str, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        describe(name)


@pytest.fixture(scope="module")
def irt() -> IRTExtractor:
    return IRTExtractor(None, "vit_tiny_patch16_224")


def test_a_trained_file_and_the_line_that_loads_it(irt: IRTExtractor, tmp_path: Path):
    file = tmp_path / "best.ckpt"
    momentum = ExtractorWithMomentum(irt)
    state = {f"model.{name}": tensor for name, tensor in momentum.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.memory.features": torch.zeros(3, 192)}}, file)
    found = describe(file)
    assert "moving average" in found.title and found.facts["transformer"] == "a ViT of width 192, depth 12, patch 16"
    assert "criterion" in found.facts["beside it"]
    assert found.facts["fits"] == "vit_tiny_patch16_224"
    args = _config(found.config)["extractor"]["args"]
    again = IRTExtractor(**args)
    assert torch.equal(again.backbone.blocks[3].attn.qkv.weight, irt.backbone.blocks[3].attn.qkv.weight)


def test_a_published_file_is_compared_with_the_architectures(tmp_path: Path):
    """In OpenAI's names; the image size of the file is another one, so that the positions have to be resampled."""
    file = tmp_path / "dino.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_384", num_classes=0).state_dict(), file)
    found = describe(file)
    assert found.facts["fits"].startswith("none") and "vit_tiny_patch16_224" in found.facts["resampled"]
    assert _config(found.config)["extractor"]["args"]["arch"] == "vit_tiny_patch16_224"


def test_other_sizes_than_timms(tmp_path: Path):
    model = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 2, "patch_size": 4, "img_size": 16})
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    found = describe(file)
    assert found.facts["transformer"] == "a ViT of width 192, depth 2, patch 4" and found.facts["fits"].startswith(
        "none"
    )


def test_kinds_of_our_own_files(tmp_path: Path, irt: IRTExtractor):
    small = {"depth": 1, "img_size": 16, "patch_size": 8}
    hybrid = HybridViTExtractor(None, "vit_tiny_patch16_224", n_layers=1, embed_dim=8, timm_args=small)
    save_file(hybrid.state_dict(), tmp_path / "hybrid.safetensors")
    found = describe(tmp_path / "hybrid.safetensors")
    assert "hybrid_vit" in found.title and "name: hybrid_vit" in str(found.config)

    pair: nn.Module = ConcatSiamese(IRTExtractor(None, "vit_tiny_patch16_224", timm_args=small), mlp_hidden_dims=[4])
    torch.save({"state_dict": {f"model.{k}": v for k, v in pair.state_dict().items()}}, tmp_path / "pair.ckpt")
    found = describe(tmp_path / "pair.ckpt")
    assert "pairwise model" in found.title and _config(found.config)["pairwise_model"]["name"] == "stir"

    save_pca(fit_pca(torch.randn(20, 6), n_components=2), tmp_path / "pca.safetensors")
    assert "PCA of embeddings of width 6 to at most 2" in describe(tmp_path / "pca.safetensors").title


@pytest.mark.parametrize("name", ["blocks.0.norm1.weight", "patch_embed.proj.weight", "pos_embed", "cls_token"])
def test_odd_shapes_are_described_too(irt: IRTExtractor, tmp_path: Path, name: str):
    torch.save({**irt.backbone.state_dict(), name: torch.tensor(1.0)}, tmp_path / "odd.pth")
    assert describe(tmp_path / "odd.pth").facts["fits"].startswith("none of the architectures")


def test_folders_are_told_and_those_of_timm_described(irt: IRTExtractor, tmp_path: Path):
    save_file(irt.backbone.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"is a folder, expected a file .* It holds model\.safetensors\.$"):
        describe(tmp_path)
    assert describe(f"local-dir:{tmp_path}").title == "A vision transformer."


def test_a_broken_file_is_one_sentence(tmp_path: Path):
    file = tmp_path / "broken.ckpt"
    file.write_bytes(b"no")
    with pytest.raises(RuntimeError, match=r"broken\.ckpt"):
        describe(file)


@pytest.mark.parametrize("weights", ["deit_small_patch16_224.fb_in1k", "vit_base_patch32_siglip_256.v2_webli"])
def test_the_committed_table_is_what_timm_says(weights: str):
    """The rest of it: ``python docs/compose_zoo.py``."""
    table = json.loads((ROOT / "docs/results/zoo.json").read_text())
    assert [row["weights"] for row in table] == list(STARTING_POINTS)
    assert next(row for row in table if row["weights"] == weights) == record(weights)
