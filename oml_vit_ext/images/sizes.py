"""Sizes of image files from their headers: the one place that reads them, with a file to keep them in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oml_vit_ext.common.files import replaced, stamp
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.reading import open_image, orientation, why_unreadable

logger = logging.getLogger(__name__)

_PATHS_PER_TASK = 64
_NAMED = 5  # broken images that an error names
_COLUMNS = {
    "path": str,
    "modified_ns": np.int64,
    "bytes": np.int64,
    "width": np.int64,
    "height": np.int64,
    "turned": bool,
}


class Size(NamedTuple):
    """Pixels of an image as Pillow decodes it, before any turn; and whether EXIF asks to turn it by a quarter."""

    width: int
    height: int
    turned: bool


class ImageSizes(NamedTuple):
    """Per image: width and height in pixels as stored, and whether EXIF turns it by a quarter."""

    width: NDArray[np.int64]  # (N,) int
    height: NDArray[np.int64]  # (N,) int
    turned: NDArray[np.bool_]  # (N,) bool

    def upright(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Width and height ``(N,)`` of the images as a viewer shows them."""
        return np.where(self.turned, self.height, self.width), np.where(self.turned, self.width, self.height)


class _Known(NamedTuple):
    """What is known about one file: its size, for as long as time of change and length stay the same."""

    bytes: int
    modified_ns: int
    size: Size


def look_at_image(file: Path, *, decode: bool = False) -> Size | str:
    """The size of an image file, or why it cannot be read.

    Args:
        file: Path of the image.
        decode: Read the whole image, not its header only: finds a file that was cut short, many times slower.

    Returns:
        The size, or the reason; for a file that does not exist it is ``images.reading.MISSING``.
    """
    try:
        with open_image(file) as image:
            if decode:
                image.load()  # first: of a PNG, the search for EXIF data loads as well, and errors there are no errors
            turned = orientation(image) in (5, 6, 7, 8)
        return Size(*image.size, turned)
    except Exception as error:  # decoders fail in many ways
        return why_unreadable(error)


def look_at_images(
    root: Path, paths: Sequence[str], *, decode: bool = False, n_threads: int = 8, verbose: bool = True
) -> list[Size | str]:
    """:func:`look_at_image` of each ``root / path``, in order.

    Args:
        root: Folder of the data set.
        paths: Relative to it.
        decode: Read whole images, not headers only.
        n_threads: Files are read by that many threads.
        verbose: Show a progress bar.
    """
    tasks = [paths[i : i + _PATHS_PER_TASK] for i in range(0, len(paths), _PATHS_PER_TASK)]
    found: list[Size | str] = []
    with (
        ThreadPoolExecutor(n_threads) as threads,
        progress(total=len(paths), desc="Reading images" if decode else "Reading sizes", verbose=verbose) as bar,
    ):
        for part in threads.map(lambda task: [look_at_image(root / path, decode=decode) for path in task], tasks):
            found.extend(part)
            bar.update(len(part))
    return found


def read_image_sizes(
    paths: Sequence[str], root: Path, *, cache: Path | None = None, n_threads: int = 8, verbose: bool = True
) -> ImageSizes:
    """Sizes of the images ``root / path``, in the order of ``paths``.

    Only headers are read (of PNG files all, because their EXIF data may stand at the end). What ``cache`` holds about a
    file is used as long as its time of change and its length are the same; the rest is read and the cache is written
    again. A cache that cannot be read or written costs time, not the run; a file that is no cache stays as it is.

    Args:
        paths: Relative to ``root``, or absolute.
        root: Folder of the data set.
        cache: A CSV file, or ``None`` to keep nothing.
        n_threads: Files are read by that many threads.
        verbose: Show a progress bar.

    Raises:
        ValueError: Some files are missing or are not images; the first of them are named.
    """
    if cache is not None and not _is_cache(cache):
        logger.warning("image sizes: %s is no file of sizes and stays as it is: name another sizes_cache", cache)
        cache = None
    known = _read_cache(cache)
    files = [str(path) for path in dict.fromkeys(paths)]
    stamps = {path: stamp(root / path) for path in files}
    unknown = [path for path in files if path not in known or known[path][:2] != stamps[path]]
    looked_at = look_at_images(root, unknown, n_threads=n_threads, verbose=verbose and bool(unknown))
    read = {path: size for path, size in zip(unknown, looked_at, strict=True) if isinstance(size, Size)}
    if cache is not None and read:
        _write_cache(cache, {**known, **{path: _Known(*stamps[path], size) for path, size in read.items()}})
    broken = {path: size for path, size in zip(unknown, looked_at, strict=True) if isinstance(size, str)}
    if broken:
        raise ValueError(_broken(broken, root))
    sizes = [read[path] if path in read else known[path].size for path in map(str, paths)]
    return ImageSizes(
        width=np.array([size.width for size in sizes], dtype=np.int64),
        height=np.array([size.height for size in sizes], dtype=np.int64),
        turned=np.array([size.turned for size in sizes], dtype=bool),
    )


def _broken(broken: dict[str, str], root: Path) -> str:
    named = "; ".join(f"{path} ({reason})" for path, reason in list(broken.items())[:_NAMED])
    more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return (
        f"{counted(len(broken), 'image')} below {str(root)!r} cannot be read: {named}{more}. "
        f"Mend these files, or take their rows out of the dataframe."
    )


def _is_cache(file: Path) -> bool:
    """Whether sizes may be written there: not over a table of other columns, such as a dataframe."""
    try:
        with file.open("rb") as content:
            columns = content.readline(10_000).decode().strip().split(",")
    except (OSError, UnicodeDecodeError):  # nothing is there, or it is damaged
        return True
    return columns == [""] or set(columns) <= set(_COLUMNS)


def _read_cache(cache: Path | None) -> dict[str, _Known]:
    if cache is None or not cache.is_file():
        return {}
    try:
        df = pd.read_csv(cache, dtype=_COLUMNS, usecols=list(_COLUMNS), keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        logger.warning("image sizes: %s cannot be used and is made again (%s)", cache, error)
        return {}
    df = df[(df.width > 0) & (df.height > 0)]
    columns = [df[name].tolist() for name in _COLUMNS]
    return {path: _Known(length, ns, Size(*size)) for path, ns, length, *size in zip(*columns, strict=True)}


def _write_cache(cache: Path, entries: dict[str, _Known]) -> None:
    rows = [(path, known.modified_ns, known.bytes, *known.size) for path, known in entries.items()]
    try:
        with replaced(cache) as unfinished:
            pd.DataFrame(rows, columns=list(_COLUMNS)).to_csv(unfinished, index=False)
    except OSError as error:
        logger.warning(
            "image sizes: %s cannot be written, so they are read again next time (%s). "
            "Another place can be given as sizes_cache.",
            cache,
            error,
        )
