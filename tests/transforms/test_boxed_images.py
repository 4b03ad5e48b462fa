"""Boxes on images: cut at the borders, whatever reads and transforms the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as albu
import numpy as np
import pytest
import torch
import torchvision.transforms as t
from albumentations.pytorch import ToTensorV2
from oml.datasets.images import ImageBaseDataset
from PIL import Image

from oml_vit_ext.transforms.boxed_images import BoxedImages, crop_inside
from oml_vit_ext.transforms.upright import reader_for

PIXELS = np.random.default_rng(0).integers(1, 256, (10, 20, 3), dtype=np.uint8)
KINDS = {"torchvision": t.Compose([t.ToTensor()]), "albumentations": albu.Compose([ToTensorV2()])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_inside_are_those_of_oml(file: Path, kind: str):
    transform: Any = KINDS[kind]
    boxes = [(2, 3, 9, 8), None, (0, 0, 20, 10)]
    ours = BoxedImages([file] * 3, boxes, transform)
    theirs = ImageBaseDataset([file] * 3, bboxes=boxes, transform=transform, f_imread=reader_for(transform))
    assert len(ours) == 3
    for mine, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(mine["input_tensors"], wanted["input_tensors"]) and mine["idx"] == wanted["idx"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [(-5, -1, 4, 6), (12, 3, 200, 11), (-9, -9, 99, 99)])
def test_what_lies_outside_is_cut_off(file: Path, kind: str, box: tuple[int, int, int, int]):
    left, upper, right, lower = box
    inside = PIXELS[max(0, upper) : lower, max(0, left) : right]
    (item,) = BoxedImages([file], [box], KINDS[kind])
    found = item["input_tensors"].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found * (1 if kind == "albumentations" else 255), inside, atol=1e-3)


@pytest.mark.parametrize("box", [(20, 0, 30, 5), (-9, 0, 0, 5), (5, 5, 5, 9), (9, 5, 5, 9)])
@pytest.mark.parametrize("picture", [PIXELS, Image.fromarray(PIXELS)], ids=["array", "picture"])
def test_a_box_without_a_pixel_is_told(box: tuple[int, int, int, int], picture: Any):
    with pytest.raises(ValueError, match=r"^its box \(.*\) holds nothing of the image of 20 x 10 px$"):
        crop_inside(picture, box)
