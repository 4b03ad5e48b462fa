"""Sizes of many images from their headers, kept in a file so that they are read once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

logger = logging.getLogger(__name__)

_PATHS_PER_TASK = 64
_COLUMNS = {
    "path": str,
    "modified_ns": np.int64,
    "bytes": np.int64,
    "width": np.int64,
    "height": np.int64,
    "turned": bool,
}


class _Entry(NamedTuple):
    """What is known about one file; as long as the first two are the same, so are the others."""

    modified_ns: int
    bytes: int
    width: int  # px, as stored
    height: int
    turned: bool  # EXIF says to turn it by a quarter


class ImageSizes(NamedTuple):
    """Per image: width and height in pixels as stored, and whether EXIF turns it by a quarter."""

    width: NDArray[np.int64]  # (N,) int
    height: NDArray[np.int64]  # (N,) int
    turned: NDArray[np.bool_]  # (N,) bool

    def upright(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Width and height ``(N,)`` of the images as a viewer shows them."""
        return np.where(self.turned, self.height, self.width), np.where(self.turned, self.width, self.height)


def read_image_sizes(
    paths: Sequence[str], root: Path, *, cache: Path | None = None, n_threads: int = 8, verbose: bool = True
) -> ImageSizes:
    """Sizes of the images ``root / path``, in the order of ``paths``.

    Only headers are read (of PNG files all, because their EXIF data may stand at the end). What ``cache`` holds about a
    file is used as long as its time of change and its length are the same; the rest is read and the cache is written
    again. A cache that cannot be read or written costs time, not the run.

    Args:
        paths: Relative to ``root``, or absolute.
        root: Folder of the data set.
        cache: A CSV file, or ``None`` to keep nothing.
        n_threads: Files are read by that many threads.
        verbose: Show a progress bar.

    Raises:
        ValueError: Some files are missing or are not images; the first of them are named.
    """
    known = _read_cache(cache)
    files = [str(path) for path in dict.fromkeys(paths)]
    tasks = [files[i : i + _PATHS_PER_TASK] for i in range(0, len(files), _PATHS_PER_TASK)]
    found: dict[str, _Entry] = {}
    broken: dict[str, str] = {}
    with (
        ThreadPoolExecutor(n_threads) as threads,
        tqdm(total=len(files), desc="Image sizes", unit="image", disable=not verbose) as bar,
    ):
        for task, entries in zip(tasks, threads.map(lambda task: _look_at(task, root, known), tasks), strict=True):
            for path, entry in zip(task, entries, strict=True):
                if isinstance(entry, _Entry):
                    found[path] = entry
                else:
                    broken[path] = entry
            bar.update(len(task))
    if cache is not None and any(known.get(path) != entry for path, entry in found.items()):
        _write_cache(cache, {**known, **found})
    if broken:
        raise ValueError(_broken(broken, root))
    rows = [found[str(path)] for path in paths]
    return ImageSizes(
        width=np.array([row.width for row in rows], dtype=np.int64),
        height=np.array([row.height for row in rows], dtype=np.int64),
        turned=np.array([row.turned for row in rows], dtype=bool),
    )


def _look_at(paths: list[str], root: Path, known: dict[str, _Entry]) -> list[_Entry | str]:
    """What is known about each file, from the cache or from its header; or why it cannot be read."""
    return [_look_at_one(path, root / path, known.get(path)) for path in paths]


def _look_at_one(path: str, file: Path, known: _Entry | None) -> _Entry | str:
    try:
        state = file.stat()
        if known is not None and known[:2] == (state.st_mtime_ns, state.st_size):
            return known
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return _Entry(state.st_mtime_ns, state.st_size, width, height, turned)
    except UnidentifiedImageError:
        return "not an image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"


def _broken(broken: dict[str, str], root: Path, limit: int = 5) -> str:
    named = "; ".join(f"{path} ({reason})" for path, reason in list(broken.items())[:limit])
    more = f"; and {len(broken) - limit} more" if len(broken) > limit else ""
    return (
        f"{len(broken)} images below {str(root)!r} cannot be read: {named}{more}. "
        f"Mend these files, or take their rows out of the dataframe."
    )


def _read_cache(cache: Path | None) -> dict[str, _Entry]:
    if cache is None or not cache.is_file():
        return {}
    try:
        df = pd.read_csv(cache, dtype=_COLUMNS, usecols=list(_COLUMNS), keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        logger.warning("image sizes: %s cannot be used and is made again (%s)", cache, error)
        return {}
    columns = [df[name].tolist() for name in _COLUMNS]
    return {path: _Entry(*values) for path, *values in zip(*columns, strict=True)}


def _write_cache(cache: Path, entries: dict[str, _Entry]) -> None:
    unfinished = cache.with_name(f".{cache.name}.{os.getpid()}.part")
    try:
        df = pd.DataFrame([(path, *entry) for path, entry in entries.items()], columns=list(_COLUMNS))
        df.to_csv(unfinished, index=False)
        os.replace(unfinished, cache)
    except OSError as error:
        logger.warning(
            "image sizes: %s cannot be written, so they are read again next time (%s). "
            "Another place can be given as sizes_cache.",
            cache,
            error,
        )
        unfinished.unlink(missing_ok=True)
