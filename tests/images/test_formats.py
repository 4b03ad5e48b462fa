"""Which names are images, which are litter, which are photos that cannot be read."""

from __future__ import annotations

import pytest
from PIL import Image, features

from oml_vit_ext.images import formats
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
def test_photos_that_are_not_read_have_a_reason(name: str, word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "reads_heic", lambda: False)
    assert word in str(why_not_read(name)) and not has_image_extension(name)


def test_heic_is_read_where_pillow_heif_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "reads_heic", lambda: True)
    assert has_image_extension("IMG_1.HEIC") and why_not_read("IMG_1.HEIC") is None


def test_avif_has_a_reason_where_pillow_does_not_read_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(features.modules, "avif", raising=False)  # as in Pillow 10
    assert "Pillow 11.3" in str(why_not_read("a.avif")) and not has_image_extension("a.avif")
