"""Which names are images, which are litter, which are photos that cannot be read."""

from __future__ import annotations

import pytest
from PIL import Image

from oml_vit_ext.images.formats import EXTENSIONS, has_image_extension, is_litter, why_not_read


def test_pillow_reads_every_listed_format():
    known = Image.registered_extensions()
    assert [ending for ending in EXTENSIONS if known.get(ending) not in Image.OPEN] == []


@pytest.mark.parametrize("name", ["a.jpg", "A.JPG", "b.JfIf", "c.jpe", "d.e.WebP", "日本.PNG", ".tiff"])
def test_endings_in_any_case_are_images(name: str):
    assert has_image_extension(name) and why_not_read(name) is None


@pytest.mark.parametrize("name", ["a.txt", "jpg", "a.jpg.part", "", "a.jpg~"])
def test_other_names_are_not(name: str):
    assert not has_image_extension(name) and why_not_read(name) is None


@pytest.mark.parametrize("name", ["._cat.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"])
def test_litter(name: str):
    assert is_litter(name)


@pytest.mark.parametrize(
    ("name", "word"), [("IMG_1.HEIC", "HEIC"), ("a.heif", "HEIC"), ("b.NEF", "raw"), ("c.svg", "PNG")]
)
def test_photos_that_are_not_read_have_a_reason(name: str, word: str):
    assert word in str(why_not_read(name)) and not has_image_extension(name)
