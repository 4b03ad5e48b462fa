"""Where listed images lie that are not in their place: in a folder more, or under another ending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from oml_vit_ext.images.formats import is_litter

_JPEG = (".jpg", ".JPG", ".jpeg", ".JPEG")
_TRIED = 2_000  # missing images of a folder for which all places are tried; of more, that many evenly spaced ones


def find_root(root: Path, *files: str) -> Path:
    """``root``, or the folder in it (or in one of those) that holds one of ``files``: archives often add such a one.

    ``root`` if none does.
    """
    layer = [root]
    for _ in range(3):
        found = [folder for folder in layer if any((folder / file).is_file() for file in files)]
        if found:
            return found[0]
        layer = [inner for folder in layer for inner in _folders(folder)]
    return root


def found_elsewhere(root: Path, missing: Sequence[str]) -> dict[str, str]:
    """Where images lie that are not at ``root / path``: old path -> path, for those that are found.

    Tried are a folder more at the front (``x/images/a.jpg`` for ``images/a.jpg``), the first folder twice, and the
    other spellings of the JPEG ending, or one where the list has none.

    Args:
        root: Folder of the data set.
        missing: Paths below it, written with ``/``.
    """
    by_top: dict[str, list[str]] = {}
    for path in missing:
        by_top.setdefault(path.partition("/")[0], []).append(path)
    more = [folder.name for folder in _folders(root)]
    found: dict[str, str] = {}
    for top, paths in by_top.items():
        prefixes = ["", *dict.fromkeys([top, *more])]
        sample = paths[:: max(1, len(paths) // _TRIED)]
        places = {place for path in sample for place in _places(path, prefixes) if _there(root, path, *place)}
        for path in paths:
            here = next((place for place in sorted(places) if _there(root, path, *place)), None)
            if here is not None:
                found[path] = _at(path, *here)
    return found


def _places(path: str, prefixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a folder to put in front, and an ending; an empty one stands for the listed one."""
    ending = PurePosixPath(path).suffix
    endings = [other for other in _JPEG if other != ending] if ending.lower() in (".jpg", ".jpeg", "") else []
    return ((prefix, other) for prefix in prefixes for other in ["", *endings] if prefix or other)


def _at(path: str, prefix: str, ending: str) -> str:
    renamed = path[: len(path) - len(PurePosixPath(path).suffix)] + ending if ending else path
    return f"{prefix}/{renamed}" if prefix else renamed


def _there(root: Path, path: str, prefix: str, ending: str) -> bool:
    return (root / _at(path, prefix, ending)).is_file()


def _folders(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not is_litter(inner.name))
