"""Small pictures: bounded, upright, of the box, and none for what cannot be read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from oml.datasets.images import ImageBaseDataset
from PIL import Image

from oml_vit_ext.pictures.report.thumbnails import data_uri, thumbnails


def _picture(uri: str) -> Image.Image:
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture()
def dataset(tmp_path: Path) -> ImageBaseDataset:
    """A photo on its side, one half red and half blue with a box round the blue, a small one, and no image."""
    turned = Image.Exif()
    turned[274] = 6  # a viewer turns it by 90 degrees
    Image.new("RGB", (400, 200), "white").save(tmp_path / "turned.jpg", exif=turned)
    halves = Image.new("RGB", (100, 50), "red")
    halves.paste("blue", (50, 0, 100, 50))
    halves.save(tmp_path / "halves.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "small.png")
    (tmp_path / "no.png").write_text("no image")
    names = ["turned.jpg", "halves.png", "small.png", "no.png"]
    return ImageBaseDataset([tmp_path / name for name in names], bboxes=[None, (50, 0, 100, 50), None, None])


def test_pictures_by_their_ids(dataset: ImageBaseDataset):
    found = thumbnails(dataset, [3, 2, 1, 0, 0], side=64)
    assert sorted(found) == [0, 1, 2]
    assert _picture(found[0]).size == (32, 64), "upright, the longer side as asked"
    assert _picture(found[2]).size == (20, 10), "not enlarged"
    red, _, blue = _picture(found[1]).convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert _picture(found[1]).size == (50, 50) and blue > 200 > 50 > red


def test_a_picture_costs_kilobytes_and_is_left_as_it_was():
    noise = Image.effect_noise((800, 600), 80).convert("RGB")
    assert len(data_uri(noise, 144)) < 20_000 and noise.size == (800, 600)
