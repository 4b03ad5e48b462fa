"""Which folders of a tree are splits, and which only look like it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRAIN = {"train", "trains", "training", "trainval"}
_VALIDATION = {
    *("validation", "validations", "validate", "val", "vals", "valid", "dev", "test", "tests", "testing"),
    *("eval", "evaluation"),
}
_OTHERS = {"query", "queries", "gallery", "probe", "holdout", "unlabeled", "unlabelled", "extra", "split", "fold"}
_FILLERS = {"set", "sets", "images", "image", "imgs", "img", "data", "dataset", "photos", "pictures", "split", "the"}


def side_of(folder: str) -> str | None:
    """``"train"`` or ``"validation"`` if a folder of this name is a split, in any case and common spelling.

    >>> side_of("Training"), side_of("test_images"), side_of("VAL"), side_of("trainset"), side_of("trainers")
    ('train', 'validation', 'validation', 'train', None)
    """
    words = [word for word in _words(folder) if word not in _FILLERS]
    if len(words) != 1:
        return None
    return "train" if words[0] in _TRAIN else "validation" if words[0] in _VALIDATION else None


def looks_like_split(folder: str) -> bool:
    """Whether one of the words in the name is one of splits.

    >>> looks_like_split("test-multiple_fruits"), looks_like_split("fold_1"), looks_like_split("trainers")
    (True, True, False)
    """
    return any(word in _TRAIN | _VALIDATION | _OTHERS for word in _words(folder))


def split_level(folders: Sequence[tuple[str, ...]]) -> int | None:
    """The level of the folders that are splits; ``None`` if there is none.

    That is the first level with folders for training and for validation. All folders there must be splits, except
    right below the folder that all images share: what else lies there may be something that came with the data set.

    Args:
        folders: The folders that each image lies in, from the root downwards.

    >>> split_level([("Training", "apple"), ("Test", "apple")]), split_level([("cat",), ("dog",)])
    (0, None)
    """
    depth = max(map(len, folders), default=0)
    for level in range(depth):
        names = {parts[level] if len(parts) > level else None for parts in folders}
        sides = {side_of(name) if name is not None else None for name in names}
        if {"train", "validation"} <= sides:
            alone = None not in sides
            top = len({parts[:level] for parts in folders}) == 1
            in_classes = all(len(parts) > level + 1 for parts in folders if parts[level:] and side_of(parts[level]))
            return level if alone or (top and in_classes) else None
        if len(names) > 1 and None in names:
            return None
    return None


def _words(folder: str) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", folder)  # trainImages
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    return [part for word in words for part in _without_set(word)]


def _without_set(word: str) -> tuple[str, ...]:
    """``trainset`` -> ``train``, ``set``."""
    stem = word.removesuffix("set")
    return (stem, "set") if stem != word and stem in _TRAIN | _VALIDATION else (word,)
