"""The first step of our transforms turns photos, and says which reader the transforms want."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import albumentations as albu
import numpy as np
import pytest
import torchvision.transforms as t
from albumentations.pytorch import ToTensorV2
from PIL import ExifTags, Image, ImageOps

from oml_vit_ext.images import read_image
from oml_vit_ext.transforms.upright import Upright, asks_for_upright, reader_for


def _photo(orientation: int | None) -> Image.Image:
    """Every pixel of its own, decoded from a file that asks to be turned."""
    exif, stored = Image.Exif(), BytesIO()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(stored, format="PNG", exif=exif)
    return Image.open(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_a_viewer_shows_it_and_only_once(orientation: int):
    expected = np.asarray(ImageOps.exif_transpose(_photo(orientation)))
    turned = Upright()(_photo(orientation))
    np.testing.assert_array_equal(np.asarray(turned), expected)
    np.testing.assert_array_equal(np.asarray(Upright()(turned)), expected)


@pytest.mark.parametrize("orientation", [None, 0, 9])
def test_a_photo_that_asks_for_nothing_known_is_handed_on(orientation: int | None):
    photo = _photo(orientation)
    assert Upright()(photo) is photo


def test_damaged_exif_data_are_ignored():
    photo = Image.new("RGB", (3, 2))
    photo.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff"
    assert Upright()(photo) is photo


@pytest.mark.parametrize(
    ("transform", "kind"), [(t.Compose([t.ToTensor()]), Image.Image), (albu.Compose([ToTensorV2()]), np.ndarray)]
)
def test_the_reader_gives_what_the_transforms_take(tmp_path: Path, transform: Any, kind: type):
    _photo(6).save(tmp_path / "x.png", exif=_photo(6).getexif())
    read = reader_for(transform)(tmp_path / "x.png")
    assert isinstance(read, kind)
    np.testing.assert_array_equal(np.asarray(read), np.asarray(ImageOps.exif_transpose(_photo(6))))


@pytest.mark.parametrize(
    ("transform", "asks"),
    [
        (t.Compose([Upright(), t.ToTensor()]), True),
        (t.Compose([t.CenterCrop(2), Upright()]), True),
        (t.Compose([t.ToTensor()]), False),
        (albu.Compose([ToTensorV2()]), False),
        (None, False),
    ],
)
def test_upright_among_the_steps_asks_for_the_reader(transform: Any, asks: bool):
    assert asks_for_upright(transform) is asks


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_photos_of_a_data_set_of_ones_own_come_in_any_mode(mode: str, tmp_path: Path):
    ending = ".jpg" if mode == "CMYK" else ".png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new(mode, (8, 6)).save(tmp_path / f"x{ending}", exif=exif)
    with Image.open(tmp_path / f"x{ending}") as photo:
        given = Upright()(photo)
    assert given.mode == "RGB" and given.size == (6, 8)
    np.testing.assert_array_equal(np.asarray(given), np.asarray(read_image(tmp_path / f"x{ending}")))
