"""Any tree of images with a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from oml_vit_ext.datasets.listing import Counts, Listing, make_frame
from oml_vit_ext.images.folders import image_files

_TRAIN = ("train",)
_VALIDATION = ("validation", "val", "valid", "test")


def folders(root: Path, train_labels: int | None = None) -> Listing:
    """A folder for each class, at any depth: the label is the folder that holds the image.

    With folders ``train`` and ``validation`` (or ``val``, ``valid``, ``test``) at the top, these are the splits, and
    the classes are what lies below. Without them all images are for validation, unless ``train_labels`` says otherwise.
    Where classes lie in folders of their own, the topmost one is the category.

    Args:
        root: The folder of the tree.
        train_labels: The first that many classes, in the order of their names, are for training; -1: all.

    Raises:
        ValueError: There are no images, some lie in no class, or there are not that many classes.
    """
    files = [path.relative_to(root) for path in image_files(root)]
    if not files:
        raise ValueError(f"{root} holds no images: expected a folder for each class.")
    tops = {path.parts[0] for path in files}
    in_splits = bool(tops & {*_TRAIN}) and bool(tops & {*_VALIDATION}) and tops <= {*_TRAIN, *_VALIDATION}
    classes = [path.parent.parts[1:] if in_splits else path.parent.parts for path in files]
    astray = [path for path, parts in zip(files, classes, strict=True) if not parts]
    if astray:
        raise ValueError(f"{root / astray[0]} lies in no class: expected images in a folder for each class only.")
    labels, names = pd.factorize(np.array(["/".join(parts) for parts in classes]), sort=True)
    if in_splits:
        if train_labels is not None:
            raise ValueError(f"train_labels is {train_labels}, but the folders of {root} are splits already.")
        is_train = np.array([path.parts[0] in _TRAIN for path in files])
    else:
        n_train = len(names) if train_labels == -1 else train_labels or 0
        if not 0 <= n_train <= len(names):
            raise ValueError(f"train_labels is {train_labels}, but {root} has {len(names)} classes.")
        is_train = labels < n_train
    deep = all(len(parts) > 1 for parts in classes)
    category = {"category": [parts[0] for parts in classes]} if deep else {}
    paths = [path.as_posix() for path in files]
    return Listing(root, make_frame(labels, paths, is_train, **category), Counts(), root)
