"""What the annotations of a data set say, before any image is looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from oml.const import IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.arrays import whole_numbers
from oml_vit_ext.common.messages import counted

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True)
class Counts:
    """Sizes of a data set as its papers give them; ``None`` where they say nothing."""

    train_images: int | None = None
    train_labels: int | None = None
    validation_images: int | None = None
    validation_labels: int | None = None
    queries: int | None = None
    gallery: int | None = None

    def differences(self, frame: pd.DataFrame) -> list[str]:
        """One phrase for each count of ``frame`` that is not the expected one."""
        found = counts_of(frame)
        return [
            f"{_counted(getattr(found, name), name)}, expected {expected:,}"
            for name, expected in vars(self).items()
            if expected is not None and getattr(found, name) != expected
        ]

    def __str__(self) -> str:
        given = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return ", ".join(_counted(n, name) for name, n in given if n)


def _counted(n: int, name: str) -> str:
    plural = name.replace("_", " ")
    return counted(n, "query" if name == "queries" else plural.removesuffix("s"), plural)


@dataclass(frozen=True)
class Listing:
    """Images with OML's columns; paths are relative to ``root`` and written with ``/``."""

    root: Path
    frame: pd.DataFrame
    counts: Counts
    source: Path  # the file that lists the images
    image_folders: tuple[str, ...] = ()  # below root: all image files here should be listed
    pairs: pd.DataFrame | None = None  # anchor and positive: paths of images that show the same thing, for tuples
    drop_single: bool = False  # whether OML's converter drops training labels with one image
    square_of_boxes: int | None = None  # boxes are those of the images fitted into a square of that side in pixels


def counts_of(frame: pd.DataFrame) -> Counts:
    train, validation = frame[frame[SPLIT_COLUMN] == TRAIN], frame[frame[SPLIT_COLUMN] == VALIDATION]
    return Counts(
        train_images=len(train),
        train_labels=train[LABELS_COLUMN].nunique(),
        validation_images=len(validation),
        validation_labels=validation[LABELS_COLUMN].nunique(),
        queries=int((validation[IS_QUERY_COLUMN] == True).sum()),  # noqa: E712  (None in training rows)
        gallery=int((validation[IS_GALLERY_COLUMN] == True).sum()),  # noqa: E712
    )


def make_frame(
    labels: object,
    paths: object,
    is_train: object,
    *,
    is_query: object = True,
    is_gallery: object = True,
    **columns: Any,
) -> pd.DataFrame:
    """A frame with OML's obligatory columns: training rows are neither queries nor gallery.

    Args:
        labels: Integer of each image.
        paths: Path of each image below the data set's folder.
        is_train: Boolean of each image; the others are for validation.
        is_query, is_gallery: Boolean of each image, for those of validation.
        columns: More columns, e.g. ``category`` or ``x_1``.

    Raises:
        ValueError: A label is no whole number.
    """
    frame = pd.DataFrame({LABELS_COLUMN: whole_numbers(labels, "The labels"), PATHS_COLUMN: paths})
    train = np.broadcast_to(np.asarray(is_train, dtype=bool), len(frame))
    frame[SPLIT_COLUMN] = np.where(train, TRAIN, VALIDATION)
    for name, values in ((IS_QUERY_COLUMN, is_query), (IS_GALLERY_COLUMN, is_gallery)):
        column = np.broadcast_to(np.asarray(values, dtype=bool), len(frame)).astype(object)
        column[train] = None
        frame[name] = pd.Series(column, dtype=object)
    return frame.assign(**columns)


def read_table(file: Path, **how: Any) -> pd.DataFrame:
    """``pandas.read_csv``, whose errors name the file.

    Raises:
        ValueError: It is no table of this kind, or no text in UTF-8.
    """
    try:
        return pd.read_csv(file, **how)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as a table: {' '.join(str(error).split()).rstrip('.')}.") from error


def read_text(file: Path) -> str:
    """The text of a list, in UTF-8.

    Raises:
        ValueError: It is in no UTF-8.
    """
    try:
        return file.read_text("utf-8-sig")  # editors of Windows put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} cannot be read as text: {error}, expected UTF-8.") from error


def find_file(root: Path, *candidates: str) -> Path:
    """The first of the candidates below ``root`` that exists.

    Raises:
        FileNotFoundError: None does; the sentence names all of them.
    """
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    raise FileNotFoundError(f"{root} has no {' nor '.join(candidates)}: is it the folder of this data set?")


def find_folder(root: Path, candidates: tuple[str, ...], paths: pd.Series) -> str:
    """The first of the candidates below ``root`` that holds one of ``paths``; the first one if none does.

    One file is not enough to tell, as it may be in an archive that is not unpacked; twenty thousand are.
    """
    samples = paths.iloc[:: max(1, len(paths) // 20_000)].tolist()
    return next((name for name in candidates if any((root / name / s).is_file() for s in samples)), candidates[0])
