"""Files of the transformers library: the embeddings are those of its own models (``transformers_files/make.py``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.transformers_names import with_authors_names
from oml_vit_ext.extractors.zoo import describe

FILES = Path(__file__).parent / "transformers_files"
SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}


@dataclass
class Kind:
    arch: str
    timm_args: dict[str, Any] = field(default_factory=dict)
    pooling: str = "cls"


KINDS = {
    "vit": Kind("vit_base_patch16_224"),
    "vit_classifier": Kind("vit_base_patch16_224"),
    "deit": Kind("deit_base_distilled_patch16_224"),
    "dinov2": Kind("vit_small_patch14_dinov2", {"mlp_ratio": 4}),
    "dinov2_swiglu": Kind("vit_giant_patch14_dinov2", {"mlp_ratio": 6}),
    "dinov2_registers": Kind("vit_small_patch14_reg4_dinov2", {"mlp_ratio": 4}),
    "dinov3": Kind("vit_small_patch16_dinov3_qkvb"),
    "dinov3_gated": Kind("vit_small_plus_patch16_dinov3_qkvb"),
    "clip": Kind("vit_base_patch16_clip_quickgelu_224"),
    "siglip": Kind("vit_base_patch16_siglip_224", pooling="map"),
}


def loaded(kind: Kind, file: Path, **timm_args: Any) -> IRTExtractor:
    args = {**SIZES, **kind.timm_args, **timm_args}
    extractor = IRTExtractor(file, kind.arch, kind.pooling, normalise_features=False, timm_args=args)
    return extractor.eval()


def test_every_file_is_tried():
    assert {file.stem for file in FILES.glob("*.safetensors")} == {*KINDS, "expected"}


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_embeddings_are_those_of_the_library(name: str):
    expected = load_file(FILES / "expected.safetensors")
    found = loaded(KINDS[name], FILES / f"{name}.safetensors")(expected["images"])
    torch.testing.assert_close(found, expected[name], atol=2e-5, rtol=1e-4)


def test_they_may_stand_within_another_model_beside_a_text_tower(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    vision = load_file(FILES / "clip.safetensors")
    text = {"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(2), "logit_scale": torch.ones(1)}
    save_file({f"model.{name}": tensor for name, tensor in {**vision, **text}.items()}, tmp_path / "clip.safetensors")
    with caplog.at_level("INFO"):
        nested = loaded(KINDS["clip"], tmp_path / "clip.safetensors").state_dict()
    torch.testing.assert_close(nested, loaded(KINDS["clip"], FILES / "clip.safetensors").state_dict())
    assert "not part of the backbone: model.logit_scale, model.text_model" in caplog.text


def test_position_embeddings_of_another_grid(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        larger = loaded(KINDS["dinov2"], FILES / "dinov2.safetensors", img_size=32)
    assert larger.backbone.state_dict()["pos_embed"].shape == (1, 1 + 16, 16)
    assert "position embeddings resampled from 2x2 to 4x4" in caplog.text


def test_what_is_missing_is_named(tmp_path: Path):
    whole = load_file(FILES / "vit.safetensors")
    without = {k: v for k, v in whole.items() if k != "encoder.layer.1.intermediate.dense.bias"}
    save_file(without, tmp_path / "vit.safetensors")
    with pytest.raises(RuntimeError, match=r"Missing: blocks\.1\.mlp\.fc1\.bias; unexpected: none"):
        loaded(KINDS["vit"], tmp_path / "vit.safetensors")


@pytest.mark.parametrize("shape", [(), (4,), (4, 16)])
def test_a_query_of_another_shape_than_its_key_does_not_pass(tmp_path: Path, shape: tuple[int, ...]):
    whole = load_file(FILES / "vit.safetensors")
    whole["encoder.layer.0.attention.attention.key.weight"] = torch.ones(shape)
    save_file(whole, tmp_path / "a.safetensors")
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.qkv\.weight"):
        loaded(KINDS["vit"], tmp_path / "a.safetensors")


def test_a_query_without_its_key_does_not_pass(tmp_path: Path):
    whole = load_file(FILES / "vit.safetensors")
    save_file(
        {k: v for k, v in whole.items() if "layer.0.attention.attention.key.w" not in k}, tmp_path / "a.safetensors"
    )
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.qkv\.weight"):
        loaded(KINDS["vit"], tmp_path / "a.safetensors")


def test_two_of_them_are_refused(tmp_path: Path):
    whole = load_file(FILES / "vit.safetensors")
    both = {f"{part}.{name}": tensor.clone() for part in ("student", "teacher") for name, tensor in whole.items()}
    save_file(both, tmp_path / "two.safetensors")
    with pytest.raises(RuntimeError, match=r"hold 2 vision transformers, under student\., teacher\."):
        loaded(KINDS["vit"], tmp_path / "two.safetensors")


def test_other_files_are_as_they_were():
    state = {"blocks.0.attn.qkv.weight": torch.ones(3)}
    assert with_authors_names(state, Path("a.pth")) is state


def test_info_describes_them():
    description = describe(str(FILES / "vit_classifier.safetensors"))
    assert description.facts["transformer"] == "a ViT of width 16, depth 2, patch 8"
    assert description.facts["beside it"] == "classifier"
