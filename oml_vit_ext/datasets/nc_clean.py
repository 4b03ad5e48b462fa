"""NC-clean, the cleaned Neural Codes landmarks, as its lists and photos come."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit

import numpy as np
import pandas as pd

from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.datasets.folders import LABEL_NAME, folders
from oml_vit_ext.datasets.listing import Counts, Listing, make_frame, read_text
from oml_vit_ext.datasets.whereabouts import find_root
from oml_vit_ext.images.folders import image_files

_LISTS = [f"annotation_clean_{part}.txt" for part in ("train", "val")]
_COUNTS = Counts(train_images=27_965, train_labels=581)  # of the re-distributed set, which the papers use
_JPEG = (".jpg", ".jpeg")
_BOX = ("x_1", "x_2", "y_1", "y_2")  # in the order of the published lists


class _Line(NamedTuple):
    image: str  # URL, or path below the folder of the data set
    label: str
    box: tuple[int, ...] = ()

    @property
    def is_url(self) -> bool:
        return "://" in self.image


def nc_clean(root: Path, boxes: bool = False) -> Listing:
    """NC-clean, the cleaned Neural Codes landmarks: all images are for training.

    Either ``annotation_clean_{train,val}.txt``, here or in ``annotations``, or a folder for each label. The published
    lists have lines of URL, label and box (``x1 x2 y1 y2``); their photos may lie anywhere below ``root`` and are known
    by the last part of the URL, or by the MD5 sum of the URL. The re-distributed ones have lines of path and label.

    Args:
        root: Folder of the data set.
        boxes: The landmarks' boxes, of published lists.

    Warns:
        Of photos of the published lists that are not there, which are many: the links are old. And of names that do not
        tell two photos apart.

    Raises:
        ValueError: A line is none of the two, there is no photo of any, or ``boxes`` are asked for where none are.
    """
    root = find_root(root, *_LISTS, *(f"annotations/{name}" for name in _LISTS))
    files = [root / folder / name for folder in ("annotations", ".") for name in _LISTS]
    files = [file for file in files if file.is_file()]
    lines = [_parsed(line, file) for file in files for line in read_text(file).splitlines() if line.strip()]
    if boxes and not any(line.box for line in lines):
        raise ValueError(f"boxes is True, but {root} has no published list of NC-clean, which holds them.")
    if not files:
        tree = folders(root, train_labels=-1)
        return Listing(root, tree.frame, _COUNTS, tree.source, tree.image_folders)
    published = any(line.is_url for line in lines)
    paths = _photos(root, lines, files[0]) if published else [line.image for line in lines]
    kept = [(line, path) for line, path in zip(lines, paths, strict=True) if path is not None]
    if not kept:
        raise ValueError(f"{files[0]} lists no photo that can be told from the others: name them by the MD5 sums.")
    labels = np.array([line.label for line, _ in kept], dtype=object)
    columns: dict[str, object] = {LABEL_NAME: labels}
    if boxes:
        sides = np.array([line.box or (np.nan,) * 4 for line, _ in kept], dtype=np.float64)
        columns |= dict(zip(_BOX, sides.T, strict=True))
    frame = make_frame(pd.factorize(labels, sort=True)[0], [path for _, path in kept], True, **columns)
    return Listing(root, frame, Counts() if published else _COUNTS, files[0])


def _parsed(line: str, file: Path) -> _Line:
    words = line.rsplit(maxsplit=5)
    if "://" in line and len(words) == 6 and all(word.lstrip("-").isdigit() for word in words[2:]):
        return _Line(words[0], words[1], tuple(map(int, words[2:])))
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and ("://" not in line or len(line.split()) == 2):
        return _Line(words[0], words[1])
    raise ValueError(f"{file} has the line {line!r}, expected a URL, a label and a box, or a path and a label.")


def _photos(root: Path, lines: Sequence[_Line], source: Path) -> list[str | None]:
    """The photo of each line below ``root``; ``None`` where there is none, or where its name leaves a doubt."""
    by_name: dict[str, list[str]] = {}
    for file in image_files(root, any_ending=True):
        by_name.setdefault(file.name, []).append(file.relative_to(root).as_posix())
    photos = [_photo(line, by_name) if line.is_url else line.image for line in lines]
    labels: dict[str, set[tuple[str, str]]] = {}
    for line, photo in zip(lines, photos, strict=True):
        if isinstance(photo, str):
            labels.setdefault(photo, set()).add((line.image, line.label))
    doubtful = {line.image for line, photo in zip(lines, photos, strict=True) if isinstance(photo, list)}
    doubtful |= {image for claims in labels.values() if len(claims) > 1 for image, _ in claims}
    absent = [line.image for line, photo in zip(lines, photos, strict=True) if photo is None]
    if len(absent) == len(lines):
        raise ValueError(f"{root} has no photo of the {len(lines)} that {source} lists, the first: {absent[0]}.")
    if absent:
        warnings.warn(
            f"{source}: {len(absent)} of {counted(len(lines), 'photo')} {'is' if len(absent) == 1 else 'are'} not "
            f"there: {some(absent)}.",
            stacklevel=4,
        )
    if doubtful:
        warnings.warn(
            f"{source}: {counted(len(doubtful), 'photo is', 'photos are')} left out, because several have the same "
            f"name: "
            f"{some(sorted(doubtful))}. Name them by the MD5 sums of their URLs.",
            stacklevel=4,
        )
    taken: set[str] = set()
    found: list[str | None] = []
    for line, photo in zip(lines, photos, strict=True):
        is_good = isinstance(photo, str) and line.image not in doubtful and photo not in taken
        found.append(photo if is_good and isinstance(photo, str) else None)
        taken |= {photo} if isinstance(photo, str) else set()
    return found


def _photo(line: _Line, by_name: dict[str, list[str]]) -> str | list[str] | None:
    """The file of a URL; several if its name is theirs and no folder is named after the label or the host."""
    for name in _names(line.image):
        files = by_name.get(name, [])
        if len(files) > 1:
            files = [file for file in files if PurePosixPath(file).parent.name == line.label] or files
        if len(files) > 1:  # a folder for each host, as wget -x makes them
            host = urlsplit(line.image).netloc
            files = [file for file in files if host in PurePosixPath(file).parts] or files
        if files:
            return files[0] if len(files) == 1 else files
    return None


def _names(url: str) -> Iterator[str]:
    """Names that the photo of a URL may have, the surest first."""
    last = urlsplit(url).path.rpartition("/")[2]
    ending = os.path.splitext(unquote(last))[1]
    digest = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    yield from dict.fromkeys([digest + ending, digest + ending.lower(), f"{digest}.jpg", f"{digest}.jpeg", digest])
    whole = url.rpartition("/")[2]  # with what follows a question mark
    plain = [
        whole,
        last,
        unquote(last),
        unquote(whole),
        unquote_plus(last),
        whole.replace("?", "@"),
    ]  # @: wget, Windows
    yield from dict.fromkeys(name for name in plain if name)
    if ending.lower() in _JPEG:  # programs that download write it their own way
        stem = os.path.splitext(unquote(last))[0]
        yield from dict.fromkeys(f"{stem}{other}" for other in (*_JPEG, *map(str.upper, _JPEG)) if other != ending)
