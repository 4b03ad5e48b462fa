"""Uploads: upright images, or a sentence."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from oml_vit_ext.app import BadUpload, crop, read_upload


def _file(image: Image.Image, kind: str = "JPEG", **more) -> bytes:
    content = io.BytesIO()
    image.save(content, format=kind, **more)
    return content.getvalue()


def test_an_upload_is_upright_and_rgb():
    turned = Image.Exif()
    turned[274] = 6
    image = read_upload(_file(Image.new("L", (40, 20), 200), exif=turned))
    assert image.size == (20, 40) and image.mode == "RGB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The upload is empty, expected an image"),
        (b"%PDF-1.7 no image at all", "cannot be read as an image (not an image)"),
        (_file(Image.effect_noise((300, 300), 90))[:2000], "cannot be read as an image (OSError"),
        (_file(Image.new("1", (4000, 2)), "PNG"), "one side at most 200 times the other"),
        (_file(Image.new("1", (14_000, 14_000)), "PNG"), "exceeds limit of 178956970 pixels"),
    ],
    ids=["empty", "pdf", "cut short", "narrow", "bomb"],
)
def test_a_bad_upload_gets_one_sentence(content: bytes, reason: str):
    with pytest.raises(BadUpload) as error:
        read_upload(content)
    assert reason in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_crop_is_the_part():
    image = Image.new("RGB", (100, 50), "red")
    image.paste("blue", (50, 25, 100, 50))
    part = crop(image, (0.5, 0.5, 1, 1))
    assert part.size == (50, 25) and part.getcolors() == [(50 * 25, (0, 0, 255))]
    assert crop(image, (0, 0, 1, 1)).size == (100, 50)


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (-0.1, 0, 1, 1), (0, 0, 1, 2), (0, 0, float("nan"), 1)]
)
def test_a_crop_that_is_none(box: tuple):
    with pytest.raises(BadUpload, match="expected left, top, right, bottom from 0 to 1"):
        crop(Image.new("RGB", (10, 10)), box)


def test_a_crop_of_less_than_a_pixel():
    with pytest.raises(BadUpload, match="leaves nothing of an image of 10 x 10 px"):
        crop(Image.new("RGB", (10, 10)), (0.001, 0.001, 0.002, 0.002))
