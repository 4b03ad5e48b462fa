"""Sizes that are no whole patches: the same picture keeps, nearly, its descriptor."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from oml.const import MEAN, STD
from PIL import Image
from torch import Tensor

from helpers import DEMO_DATA, TINY_HYBRID
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.extractors.backbone import check_images, resize_to_stride


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
