"""The image files below a folder: the one walk that data sets and indexes share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from oml_vit_ext.images.formats import has_image_extension


def image_files(folder: Path) -> Iterator[Path]:
    """All image files below ``folder``, in the order of their names.

    Links to folders are followed, each folder once, so that a link back does no harm. Hidden files and folders (a name
    that begins with a dot) are left out.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if has_image_extension(name) and not name.startswith("."):
                yield Path(parent) / name
