"""What an embedder sees of real people's image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as t
from oml.registry.transforms import get_transforms_by_cfg
from PIL import ExifTags, Image
from torch import nn

from helpers.embedders import make_embedder
from oml_vit_ext.retrieval import Embedder


class _Means(nn.Module):
    """Mean colour of the upper half and of the lower half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upper, lower = x.tensor_split(2, dim=2)
        return torch.cat([upper.mean(dim=(2, 3)), lower.mean(dim=(2, 3))], dim=1)


class _Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[float(x.shape[2]), float(x.shape[3])]]).repeat(len(x), 1)


PLAIN = t.Compose([t.ToTensor()])
SHOWN = np.array([1, 0, 0, 0, 0, 1], dtype=np.float32)  # red above, blue below


def _shown() -> Image.Image:
    image = Image.new("RGB", (16, 24), "red")
    image.paste("blue", (0, 12, 16, 24))
    return image


def _on_its_side(file: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    _shown().transpose(Image.Transpose.ROTATE_270).save(file, exif=exif)


def _with_alpha(file: Path) -> None:
    image = _shown().convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 255))
    image.save(file)


def _palette(file: Path) -> None:
    _shown().quantize(4).save(file)


@pytest.mark.parametrize("save", [_on_its_side, _with_alpha, _palette])
def test_files_are_seen_as_a_viewer_shows_them(tmp_path: Path, save):
    save(tmp_path / "x.png")
    (found,) = Embedder(_Means(), PLAIN, device="cpu").embed_all([tmp_path / "x.png"])
    np.testing.assert_allclose(found, SHOWN, atol=0.02)


def test_grey_of_16_bits_is_as_bright_as_of_8(tmp_path: Path):
    grey = np.linspace(3, 250, 64).reshape(8, 8).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    for name in ("16.png", "16.tif"):
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
    eight, *sixteen = Embedder(_Means(), PLAIN, device="cpu").embed_all(
        [tmp_path / name for name in ("8.png", "16.png", "16.tif")]
    )
    for found in sixteen:
        np.testing.assert_allclose(found, eight, atol=1e-6)


@pytest.mark.parametrize(("size", "word"), [((9_000, 3), "9000 x 3 px"), ((2, 4_000), "2 x 4000 px")])
def test_lines_are_named_and_not_blown_up(tmp_path: Path, size: tuple[int, int], word: str):
    Image.new("RGB", size).save(tmp_path / "line.png")
    (batch,) = make_embedder().embed([tmp_path / "line.png"])
    ((position, reason),) = batch.broken
    assert position == 0 and word in reason and len(batch.embeddings) == 0


def test_boxes_are_of_the_upright_image(tmp_path: Path):
    _on_its_side(tmp_path / "x.png")
    embedder = Embedder(_Means(), PLAIN, device="cpu")
    (found,) = embedder.embed_all([tmp_path / "x.png"], [(0, 12, 16, 24)])
    np.testing.assert_allclose(found, [0, 0, 1, 0, 0, 1], atol=0.02)


@pytest.mark.parametrize(("boxes", "seen"), [("scale_of_image", [60, 90]), ("full", [400, 600])])
def test_query_boxes_keep_the_scale_of_their_image_unless_asked_otherwise(tmp_path: Path, boxes: str, seen: list):
    Image.new("RGB", (1_000, 700)).save(tmp_path / "x.png")
    transform = get_transforms_by_cfg({"name": "norm_resize_dtop", "args": {"im_size": 600, "boxes": boxes}})
    (found,) = Embedder(_Sizes(), transform, device="cpu").embed_all([tmp_path / "x.png"], [(10, 20, 160, 120)])
    assert found.tolist() == seen
