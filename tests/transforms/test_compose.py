"""``torchvision.transforms.v2`` wherever v1 works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as albu
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms as v1
from albumentations.pytorch import ToTensorV2
from oml.datasets.images import ImageBaseDataset, ImageLabeledDataset, ImageQueryGalleryLabeledDataset
from oml.transforms.images.torchvision import get_normalisation_resize_torch
from oml.utils.images.images import imread_cv2
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.transforms.compose import as_any_compose, as_known_compose

OLD = v1.Compose([v1.ToTensor(), v1.Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))])
STEPS = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))]
NEW = v2.Compose(STEPS)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    names = [tmp_path / f"{i}.png" for i in range(4)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(name)
    return names


def test_other_transforms_stay_what_they_are() -> None:
    for transform in (OLD, albu.Compose([]), get_normalisation_resize_torch(32), None):
        assert as_known_compose(transform) is transform


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_sets_of_oml(paths: list[Path], num_workers: int) -> None:
    boxes = [(1, 2, 20, 30), None, (0, 0, 32, 32), None]
    expected = [ImageBaseDataset(paths, bboxes=boxes, transform=OLD)[i]["input_tensors"] for i in range(4)]
    plain = ImageBaseDataset(paths, bboxes=boxes, transform=NEW)
    by_position = ImageBaseDataset(paths, None, boxes, None, NEW, imread_cv2)
    frame = pd.DataFrame({"path": [str(path) for path in paths], "label": range(4), "split": "train"})
    whole = [(0, 0, 32, 32) if box is None else box for box in boxes]
    frame[["x_1", "y_1", "x_2", "y_2"]] = whole
    labelled: Any = ImageLabeledDataset(frame, transform=NEW)
    frame = frame.assign(split="validation", is_query=True, is_gallery=True)
    asked: Any = ImageQueryGalleryLabeledDataset(frame, transform=NEW)
    for dataset in (plain, by_position, labelled, asked):
        loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
        for item, wanted in zip(loader, expected, strict=True):
            torch.testing.assert_close(torch.as_tensor(item["input_tensors"]).as_subclass(torch.Tensor), wanted)


def test_an_embedder(paths: list[Path]) -> None:
    extractor = IRTExtractor(None, **TINY_PLAIN)
    old, new = (Embedder(extractor, transform, device="cpu") for transform in (OLD, NEW))
    np.testing.assert_allclose(new.embed_all(paths), old.embed_all(paths), atol=1e-5)


def _brighter(picture: Image.Image) -> torch.Tensor:
    return v1.functional.to_tensor(picture) / 2 + 0.5


@pytest.mark.parametrize(
    "transform",
    [
        v1.ToTensor(),
        _brighter,
        torch.nn.Sequential(*STEPS),
        ResNet18_Weights.DEFAULT.transforms(),
        v1.Compose([v2.Resize((16, 16)), v1.ToTensor()]),
        albu.Compose([albu.Normalize(), ToTensorV2()]),
        albu.ReplayCompose([albu.Normalize(), ToTensorV2()]),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_an_embedder_takes_what_makes_a_tensor_of_a_picture(paths: list[Path], transform: Any) -> None:
    embedder = Embedder(IRTExtractor(None, **TINY_PLAIN), transform, device="cpu")
    assert embedder.fingerprint.width == 192
    assert embedder.embed_all(paths).shape == (4, 192)


@pytest.mark.parametrize("transform", [None, [v1.ToTensor()], {"name": "augs_irt"}])
def test_what_cannot_be_called_is_no_transform(transform: Any) -> None:
    with pytest.raises(ValueError, match=r"^transform is .*, expected a Compose of torchvision \(v1 or v2\)"):
        as_any_compose(transform)


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (v1.Compose([v1.Resize((8, 8))]), "Image "),
        (v1.PILToTensor(), r"torch.uint8 \(3, 120, 160\)"),
        (v2.Compose([v2.ToImage(), v2.Resize((8, 8))]), r"torch.uint8 \(3, 8, 8\)"),
        (albu.Compose([albu.Resize(8, 8)]), r"ndarray \(8, 8, 3\)"),
        (v1.Compose([v1.Grayscale(), v1.ToTensor()]), r"torch.float32 \(1, 120, 160\)"),
    ],
)
def test_what_makes_no_tensor_of_floats_is_told_with_the_way_out(transform: Any, found: str) -> None:
    embedder = Embedder(IRTExtractor(None, **TINY_PLAIN), transform, device="cpu")
    with pytest.raises(ValueError, match=rf"^The transform makes {found}.*v2\.ToDtype\(torch\.float32, scale=True\)"):
        _ = embedder.fingerprint


def test_a_single_transform_of_albumentations_is_one_of_its_own_compositions() -> None:
    found = as_any_compose(albu.Normalize())
    assert isinstance(found, albu.Compose) and found(image=np.zeros((4, 4, 3), np.uint8))["image"].dtype == np.float32
