"""Sizes that are no whole patches: the same picture keeps, nearly, its descriptor."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from oml.const import MEAN, STD
from PIL import Image
from torch import Tensor

from helpers import DEMO_DATA, TINY_HYBRID
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.extractors.backbone import check_arch, check_images, resize_to_stride


def read(path: Path, size: tuple[int, int]) -> Tensor:
    """``(3, H, W)``, normalised; ``size`` is H and W."""
    picture = Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def cosines(extractor: torch.nn.Module, one: Tensor, other: Tensor) -> Tensor:
    with torch.no_grad():
        return extractor.eval()(one) @ extractor(other).T


def test_whole_patches_are_left_alone_and_others_enlarged():
    images = torch.rand(1, 3, 16, 24)
    assert resize_to_stride(images, (8, 8)) is images
    assert resize_to_stride(images[..., 1:, 2:], (8, 8)).shape == images.shape
    assert resize_to_stride(images[..., :1, :1], (8, 4)).shape == (1, 3, 8, 4)


@pytest.mark.parametrize("size", [(47, 50), (51, 45)])
def test_a_picture_of_odd_size_is_nearest_to_itself(size: tuple[int, int]):
    paths = pd.read_csv(DEMO_DATA / "df.csv").path.sample(16, random_state=0)
    extractor = HybridViTExtractor(None, n_layers=2, embed_dim=64, **TINY_HYBRID)
    whole = torch.stack([read(DEMO_DATA / path, (48, 48)) for path in paths])
    odd = torch.stack([read(DEMO_DATA / path, size) for path in paths])
    assert cosines(extractor, odd, whole).argmax(1).tolist() == list(range(16))


@pytest.mark.skipif("OML_VIT_EXT_DATA" not in os.environ, reason="needs trained weights: set OML_VIT_EXT_DATA")
@pytest.mark.parametrize("name", ["irt", "hybrid_vit"])
def test_photos_of_odd_size_with_trained_weights(name: str):
    """The cosine between both sizes of a photo, and that it is higher than with padding."""
    root = Path(os.environ["OML_VIT_EXT_DATA"])
    weights, grocery = root / "weights" / "vit_small_patch14.safetensors", root / "data" / "grocery"
    arch = "vit_small_patch14_dinov2"
    extractor = (
        IRTExtractor(weights, arch, "avg")
        if name == "irt"
        else HybridViTExtractor(weights, arch, embed_dim=256, enhanced_locality=False)
    )
    paths = pd.read_csv(grocery / "df.csv").path.sample(6, random_state=0)
    whole = torch.stack([read(grocery / path, (84, 84)) for path in paths])
    odd = torch.stack([read(grocery / path, (75, 93)) for path in paths])
    resized = cosines(extractor, odd, whole).diagonal()
    padded = cosines(extractor, F.pad(odd, (0, -odd.shape[-1] % 14, 0, -odd.shape[-2] % 14)), whole).diagonal()
    assert resized.mean() > 0.95
    assert resized.mean() > padded.mean()


def test_bytes_are_no_images():
    with pytest.raises(ValueError, match=r"Images are torch.uint8, expected floating-point numbers: divide by 255"):
        check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("arch", "family"),
    [
        ("swin_tiny_patch4_window7_224", "swin_transformer"),
        ("swin_tiny_patch4_window7_224.ms_in1k", "swin_transformer"),
        ("swinv2_base_window8_256", "swin_transformer_v2"),
        ("convnext_tiny", "convnext"),
        ("maxvit_tiny_rw_224", "maxxvit"),
        ("resnet50", "resnet"),
        ("efficientnet_b0", "efficientnet"),
        ("levit_128", "levit"),
        ("mobilevit_s", "mobilevit"),
        ("pvt_v2_b0", "pvt_v2"),
        ("xcit_nano_12_p8_224", "xcit"),
        ("cait_xxs24_224", "cait"),
        ("samvit_base_patch16", "vision_transformer_sam"),
        ("vit_relpos_base_patch16_224", "vision_transformer_relpos"),
        ("hiera_large_224", "hiera"),
    ],
)
def test_models_that_are_no_plain_transformer_are_told_with_some_that_are(arch: str, family: str):
    with pytest.raises(
        ValueError, match=f"^arch '{arch}' is one of timm's '{family}' models, expected a plain"
    ) as told:
        check_arch(arch)
    possible = re.findall(r"'([^']+)'", str(told.value).split("e.g.")[1])
    assert len(possible) == 2
    for other in possible:
        check_arch(other)
    sizes = [size for size in ("tiny", "small", "base", "large") if size in possible[0]]
    assert sizes == [size for size in ("tiny", "base", "large") if size in arch] or not any(
        size in arch for size in ("tiny", "base", "large")
    )


@pytest.mark.parametrize(
    ("arch", "pooling"),
    [
        ("vit_tiny_patch16_224", "cls"),
        ("eva02_tiny_patch14_224", "cls"),
        ("eva02_tiny_patch14_224", "avg"),
        ("deit3_small_patch16_224", "cls"),
        ("deit_tiny_distilled_patch16_224", "cls"),
        ("vit_medium_patch16_reg4_gap_256", "avg"),
        ("vit_pwee_patch16_reg1_gap_256", "max"),
        ("vit_base_patch16_siglip_224", "map"),
        ("vit_base_patch16_siglip_224", "avg"),
        pytest.param(
            *("vit_small_patch16_dinov3", "cls"),
            marks=pytest.mark.skipif(
                not timm.is_model("vit_small_patch16_dinov3"), reason="timm is too old for DINOv3"
            ),
        ),
        ("vit_small_patch14_reg4_dinov2", "avg"),
    ],
)
def test_embeddings_are_read_from_the_tokens_of_timms_own_model(arch: str, pooling: str):
    """At the model's own size, from a model that timm builds by itself; prefix tokens are in no mean."""
    extractor = IRTExtractor(None, arch, pooling, timm_args={"depth": 2}).eval()
    images = torch.rand(2, *extractor.backbone.pretrained_cfg["input_size"])
    plain = timm.create_model(arch, num_classes=0, depth=2).eval()
    plain.load_state_dict(extractor.backbone.state_dict(), strict=False)
    with torch.no_grad():
        tokens = plain.forward_features(images)
        patches = tokens[:, plain.num_prefix_tokens :]
        assert patches.shape[1] == (images.shape[-1] // plain.patch_embed.patch_size[0]) ** 2
        if pooling == "map":
            expected = plain(images)
        else:
            expected = {"cls": tokens[:, 0], "avg": patches.mean(1), "max": patches.amax(1)}[pooling]
            expected = plain.fc_norm(expected)
        torch.testing.assert_close(extractor(images), F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)
