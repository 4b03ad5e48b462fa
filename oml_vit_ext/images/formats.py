"""Which files are images: the one list of formats for data sets, indexes and samplers."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

EXTENSIONS = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_HEIC = (".heic", ".heif", ".hif")

# Photos that Pillow cannot read: worth a word where they are left out, as they look like images to their owner.
_UNREADABLE = {
    (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"): "raw photos are not read: convert them to JPEG",
    (".jp2", ".jxl", ".psd", ".svg"): "this format is not read: convert them to PNG",
}
_GOES_ON = re.compile(
    r"\.(avif|bmp|gif|jpe?g|png|tiff?|webp|heic)(\?.*|\.\d+|~|[:!_]\w+|\.(part|crdownload|download|tmp))$"
)
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}


def has_image_extension(name: str) -> bool:
    """Whether a file of this name is taken for an image; the case does not matter.

    >>> has_image_extension("IMG_1.JPG"), has_image_extension("notes.txt")
    (True, False)
    """
    return name.lower().endswith((*EXTENSIONS, *_HEIC)) and why_not_read(name) is None


def is_litter(name: str) -> bool:
    """Whether editors and systems leave files or folders of this name beside photos: hidden ones, caches, bins.

    >>> is_litter("._cat.jpg"), is_litter("@eaDir"), is_litter("cat.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_FILES | _SYSTEM_FOLDERS


def why_not_read(name: str) -> str | None:
    """Why a photo of this name is not read; ``None`` for images that are, and for what is no photo.

    >>> why_not_read("IMG_1.CR2")
    'raw photos are not read: convert them to JPEG'
    """
    ending = Path(name).suffix.lower()
    if ending in _HEIC and not reads_heic():
        return "HEIC is not read without pillow-heif: pip install 'oml-vit-ext[heic]', or convert them to JPEG"
    if ending == ".avif" and not _reads_avif():
        return "AVIF is not read by this Pillow: install Pillow 11.3 or later, or convert them to JPEG"
    return next((reason for endings, reason in _UNREADABLE.items() if ending in endings), None)


def goes_on(name: str) -> bool:
    """Whether the name of a file has the ending of an image, but not at its end: copies and downloads have.

    >>> goes_on("a.jpg?w=600"), goes_on("a.jpg.1"), goes_on("a.jpg.part"), goes_on("a.jpg.txt"), goes_on("a.jpg")
    (True, True, True, False, False)
    """
    return _GOES_ON.search(name.lower()) is not None


def reads_heic() -> bool:
    """Whether pillow-heif is installed, the extra ``heic`` of this package."""
    return find_spec("pillow_heif") is not None


def _reads_avif() -> bool:
    from PIL import features  # here, because importing this package should cost little

    return "avif" in features.modules and bool(features.check("avif"))
