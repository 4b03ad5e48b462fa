"""The image files that this package reads: the one list of formats."""

from __future__ import annotations

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def has_image_extension(name: str) -> bool:
    """Whether a file of this name is taken for an image; the case does not matter."""
    return name.lower().endswith(EXTENSIONS)
