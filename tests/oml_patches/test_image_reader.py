"""OML's data sets read as this package does where the transforms or the scripts ask for it, and as ever elsewhere."""

from __future__ import annotations

from pathlib import Path

import albumentations as albu
import numpy as np
import pandas as pd
import pytest
import torchvision.transforms as t
from albumentations.pytorch import ToTensorV2
from oml.datasets.images import ImageBaseDataset, get_retrieval_images_datasets
from oml.registry.transforms import get_transforms_by_cfg
from PIL import ExifTags, Image

from oml_vit_ext.oml_patches import image_reader, read_all_upright
from oml_vit_ext.transforms.upright import Upright

OURS = t.Compose([Upright(), t.ToTensor()])
OMLS = t.Compose([t.ToTensor()])
ALBU = albu.Compose([ToTensorV2()])


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that other tests ran in this process have called it."""
    monkeypatch.setattr(image_reader, "_reads_all", False)


@pytest.fixture()
def photo(tmp_path: Path) -> Path:
    """Shown as 20 x 30 with red above and blue below, stored on its side."""
    shown = Image.new("RGB", (20, 30), "red")
    shown.paste("blue", (0, 15, 20, 30))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    return tmp_path / "phone.png"


@pytest.fixture()
def for_all(as_in_a_new_process: None) -> None:
    read_all_upright()


def _read(photo: Path, transform, box=None) -> np.ndarray:
    dataset = ImageBaseDataset([photo], bboxes=None if box is None else [box], transform=transform)
    return np.asarray(dataset[0]["input_tensors"]) > 0.5


def _is_upright(pixels: np.ndarray) -> bool:
    red_above, blue_below = pixels[0, :15].all(), pixels[2, 15:].all()
    return pixels.shape == (3, 30, 20) and bool(red_above and blue_below)


def test_transforms_that_ask_for_it_get_the_photo_upright(photo: Path):
    assert _is_upright(_read(photo, OURS))


@pytest.mark.parametrize("name", ["augs_irt", "norm_resize_irt", "augs_dtop", "norm_resize_dtop"])
def test_all_of_ours_ask_for_it(photo: Path, name: str):
    transform = get_transforms_by_cfg({"name": name, "args": {}})
    assert ImageBaseDataset([photo], transform=transform)._f_imread is image_reader.read_image


@pytest.mark.parametrize("transform", [OMLS, ALBU])
def test_oml_alone_is_as_before(photo: Path, transform):
    assert _read(photo, transform).shape == (3, 20, 30)


@pytest.mark.parametrize("transform", [OURS, OMLS, ALBU])
def test_scripts_read_everything_upright(photo: Path, for_all: None, transform):
    assert _is_upright(_read(photo, transform))


def test_a_reader_that_was_chosen_stays(photo: Path, for_all: None):
    dataset = ImageBaseDataset([photo], transform=OURS, f_imread=lambda _: Image.new("RGB", (7, 5)))
    assert dataset[0]["input_tensors"].shape == (3, 5, 7)


@pytest.mark.parametrize(("box", "colour"), [((0, 0, 20, 10), 0), ((0, 20, 20, 30), 2)])
def test_boxes_speak_of_the_upright_image(photo: Path, box: tuple, colour: int):
    cut = _read(photo, OURS, box)
    assert cut.shape == (3, 10, 20) and cut[colour].all() and cut.sum() == 200


def test_what_is_read_upright_is_drawn_upright(photo: Path):
    assert ImageBaseDataset([photo], transform=OURS).visualize(0).shape == (30, 20, 3)
    assert ImageBaseDataset([photo], transform=OMLS).visualize(0).shape == (20, 30, 3)


def test_both_data_sets_of_a_training_read_so(photo: Path):
    flags = {"label": [0, 0, 1, 1], "split": ["train"] * 2 + ["validation"] * 2, "path": [photo.name] * 4}
    df = pd.DataFrame({**flags, "is_query": [None, None, True, True], "is_gallery": [None, None, True, True]})
    df.to_csv(photo.parent / "df.csv", index=False)
    for dataset in get_retrieval_images_datasets(photo.parent, OURS, OURS, verbose=False):
        assert dataset[0]["input_tensors"].shape == (3, 30, 20)


def test_the_prediction_pipeline_picks_it_too():
    from oml.lightning.pipelines import predict

    assert predict.get_im_reader_for_transforms(OURS) is image_reader.read_image
    assert predict.get_im_reader_for_transforms(OMLS) is not image_reader.read_image
