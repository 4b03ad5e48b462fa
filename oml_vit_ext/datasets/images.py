"""Looks at the image files of a data set: which are there, which can be read, how large they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm.auto import tqdm

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MISSING = "missing"

_PATHS_PER_TASK = 64


class Size(NamedTuple):
    """Pixels of an image as stored, which is how the host reads it; and whether EXIF asks to turn it by a quarter."""

    width: int
    height: int
    turned: bool


def look_at_images(
    root: Path, paths: Sequence[str], *, decode: bool = False, n_threads: int = 8, verbose: bool = True
) -> list[Size | str]:
    """The size of each image ``root / path``, or why it cannot be read: ``missing`` or what is wrong with it.

    Args:
        root: Folder of the data set.
        paths: Relative to it.
        decode: Read whole images, not headers only: finds files that were cut short, but takes many times longer.
        n_threads: Files are read by that many threads.
        verbose: Show a progress bar.
    """
    tasks = [paths[i : i + _PATHS_PER_TASK] for i in range(0, len(paths), _PATHS_PER_TASK)]
    found: list[Size | str] = []
    with (
        ThreadPoolExecutor(n_threads) as threads,
        tqdm(total=len(paths), desc="Reading images" if decode else "Reading sizes", disable=not verbose) as bar,
    ):
        for part in threads.map(lambda task: [_look_at(root / path, decode) for path in task], tasks):
            found.extend(part)
            bar.update(len(part))
    return found


def image_files(folder: Path) -> Iterator[Path]:
    """All image files below ``folder``, in the order of their names; hidden ones are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(parent) / name


def _look_at(file: Path, decode: bool) -> Size | str:
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            if decode:
                image.load()
        return Size(width, height, turned)
    except FileNotFoundError:
        return MISSING
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders fail in many ways
        return f"{type(error).__name__}: {error}"
