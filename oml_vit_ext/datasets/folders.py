"""Any tree of images with a folder for each class."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.datasets.listing import Counts, Listing, make_frame
from oml_vit_ext.datasets.splits import looks_like_split, side_of, split_level
from oml_vit_ext.images.folders import image_files

LABEL_NAME = "label_name"  # column: the folder of the class
_MISSING = {"na", "n/a", "nan", "null", "none", "<na>", "#na", "#n/a", "-nan"}


def folders(root: Path, train_labels: int | None = None, validation_share: float | None = None) -> Listing:
    """A folder for each class, at any depth: the label is the folder that holds the image.

    With folders for training and for validation (``train``, ``Training``, ``val``, ``Test`` and the like), these are
    the splits, and the classes are what is left of the path: a class in both is one label. Without them all images are
    for validation, unless ``train_labels`` or ``validation_share`` says otherwise. Where classes lie in folders of
    their own, the topmost one is the category. The column ``label_name`` keeps the names of the classes.

    Args:
        root: The folder of the tree.
        train_labels: The first that many classes, in the order of their names, are for training; -1: all.
        validation_share: This share of the classes, taken evenly from the list of their names, is for validation, the
            others are for training. Classes with one image, which teach nothing, go to validation as well.

    Warns:
        Of files whose names a CSV file cannot hold and of images beside the splits, which are left out; of folders that
        look like splits but are not taken for them, and of classes with one image.

    Raises:
        ValueError: There are no images, some lie in no class, or there are not that many classes.
    """
    if train_labels is not None and type(train_labels) is not int:
        raise ValueError(
            f"train_labels is {train_labels!r:.80}, expected a whole number: how many classes of {root} to train on."
        )
    files = _with_names_of_text(root, [path.relative_to(root) for path in image_files(root)])
    if not files:
        raise ValueError(f"{root} holds no images{_what_else(root)}: expected a folder for each class.")
    level = split_level([path.parent.parts for path in files])
    if level is not None:
        files = _inside_splits(root, files, level)
    _tell_what_is_no_split(root, files, level)
    depth = 0 if level is None else _depth_of_splits(files, level)
    classes = [path.parent.parts[: level or 0] + path.parent.parts[(level or 0) + depth :] for path in files]
    astray = [path for path, parts in zip(files, classes, strict=True) if not parts]
    if astray:
        raise ValueError(f"{root / astray[0]} lies in no class: expected images in a folder for each class only.")
    names = np.array([_readable("/".join(parts)) for parts in classes], dtype=object)
    labels, of_label = pd.factorize(names, sort=True)
    if level is not None:
        if train_labels is not None:
            raise ValueError(f"train_labels is {train_labels}, but the folders of {root} are splits already.")
        is_train = np.array([side_of(path.parts[level]) == "train" for path in files])
    elif validation_share is not None and train_labels is None:
        is_train = ~np.isin(labels, held_out_labels(labels, validation_share))
    else:
        n_train = len(of_label) if train_labels == -1 else train_labels or 0
        if not 0 <= n_train <= len(of_label):
            raise ValueError(
                f"train_labels is {train_labels}, but {root} has {counted(len(of_label), 'class', 'classes')}."
            )
        is_train = labels < n_train
    _tell_single_images(root, names)
    _tell_other_cases(root, of_label)
    columns = {LABEL_NAME: names}
    if all(len(parts) > 1 for parts in classes):
        columns["category"] = np.array([_readable(parts[0]) for parts in classes], dtype=object)
    paths = np.array([path.as_posix() for path in files], dtype=object)
    return Listing(root, make_frame(labels, paths, is_train, **columns), Counts(), root)


def held_out_labels(labels: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The labels for validation: evenly spaced among those with two images or more, and all with one.

    Args:
        labels: Of each image ``(N,)``.
        share: Of the labels with two images or more, at least one of them if there are two.

    Raises:
        ValueError: ``share`` is not between 0 and 1.

    >>> held_out_labels(np.array([0, 0, 1, 1, 2, 2, 3, 3, 4]), 0.25)
    array([3, 4])
    """
    check_number("validation_share", share, 0.0, 1.0)
    found, counts = np.unique(labels, return_counts=True)
    several = found[counts > 1]
    n_held = min(max(round(share * len(several)), int(share > 0 and len(several) > 1)), len(several))
    at = ((np.arange(n_held) + 1) * len(several) / max(1, n_held)).astype(np.int64) - 1
    held: NDArray[np.int64] = np.sort(np.concatenate([several[at], found[counts == 1]]))
    return held


def _with_names_of_text(root: Path, files: list[Path]) -> list[Path]:
    """Without the files whose names do not come back from a CSV file as they went in."""
    others = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in files if not _is_text(path)]
    if others:
        warnings.warn(
            f"{root}: left out. a CSV file cannot hold the name, which is not UTF-8 or has a carriage return "
            f"({len(others)}): {some(others)}.",
            stacklevel=4,
        )
    return [path for path in files if _is_text(path)]


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return "\r" not in str(path)


def _readable(name: str) -> str:
    """The name, with a stroke behind it where pandas would read it as a missing value.

    Letters with accents are one character each: archives made on a Mac write them as two.
    """
    name = unicodedata.normalize("NFC", name)
    return f"{name}_" if name.lower() in _MISSING else name


def _depth_of_splits(files: list[Path], level: int) -> int:
    """How many folders below each other are splits: archives often hold ``train/train``."""

    def repeated(depth: int) -> bool:
        pairs = ((path.parent.parts[level], path.parent.parts[depth : depth + 1]) for path in files)
        return all(inner and side_of(inner[0]) == side_of(outer) for outer, inner in pairs)

    end = level + 1
    while repeated(end):
        end += 1
    return end - level


def _what_else(root: Path) -> str:
    others = [path.relative_to(root).as_posix() for path in image_files(root, any_ending=True)]
    return f", but other files ({len(others)}): {some(others)}" if others else ""


def _inside_splits(root: Path, files: list[Path], level: int) -> list[Path]:
    inside = [path for path in files if len(path.parts) > level + 1 and side_of(path.parts[level])]
    beside = sorted(Counter("/".join(path.parts[: level + 1]) for path in set(files) - set(inside)).items())
    if beside:
        told = some([f"{name} ({counted(count, 'image')})" for name, count in beside])
        warnings.warn(f"{root}: left out, because it lies beside the folders of the splits: {told}.", stacklevel=4)
    return inside


def _tell_what_is_no_split(root: Path, files: list[Path], level: int | None) -> None:
    if level is not None:
        return
    suspects = {
        "/".join(path.parts[: depth + 1])
        for path in files
        for depth, name in enumerate(path.parent.parts)
        if looks_like_split(name)
    }
    if suspects:
        warnings.warn(
            f"{root}: {some(sorted(suspects))} looks like a split, but is taken for a class: expected folders for "
            f"training and for validation side by side, e.g. train and test, with a folder for each class in them.",
            stacklevel=4,
        )


def _tell_single_images(root: Path, names: NDArray[np.object_]) -> None:
    single = [str(name) for name, count in sorted(Counter(names).items()) if count == 1]
    if single:
        warnings.warn(
            f"{root}: {counted(len(single), 'class has', 'classes have')} one image: {some(single)}.", stacklevel=4
        )


def _tell_other_cases(root: Path, names: NDArray[np.object_]) -> None:
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(name.casefold(), []).append(name)
    several = [name for found in spellings.values() if len(found) > 1 for name in found]
    if several:
        warnings.warn(
            f"{root}: {len(several)} classes differ in upper and lower case alone, and are labels of their own: "
            f"{some(several)}.",
            stacklevel=4,
        )
