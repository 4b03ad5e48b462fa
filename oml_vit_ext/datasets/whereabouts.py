"""Where listed images lie that are not in their place: in a folder more, or under another ending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from oml_vit_ext.images.formats import is_litter

_JPEG = (".jpg", ".JPG", ".jpeg", ".JPEG", ".Jpg", ".Jpeg")
_TELLING = 4  # folders: what a path with so many says is one image's alone, also without the first of them
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

    Tried are a folder more at the front (``x/images/a.jpg`` for ``images/a.jpg``) or behind the first
    (``images/x/a.jpg``), the first folder twice, and the other spellings of the JPEG ending, or one where the list has
    none. In deep trees (``train/a/b/c/abc.jpg``) whose first folder is not there, also another one, or none: archives
    that were unpacked each into a folder of its own.

    Args:
        root: Folder of the data set.
        missing: Paths below it, written with ``/``.
    """
    by_top: dict[str, list[str]] = {}
    for path in missing:
        by_top.setdefault(path.partition("/")[0] if "/" in path else "", []).append(path)
    more = [folder.name for folder in _folders(root)]
    found: dict[str, str] = {}
    for top, paths in by_top.items():
        heads = _heads(root, top, more)
        others = [] if (root / top).is_dir() else [*more, ""]
        sample = paths[:: max(1, len(paths) // _TRIED)]
        places = {place for path in sample for place in _places(path, heads, others) if _there(root, path, *place)}
        by_folder: dict[str, list[tuple[str, str]]] = {}
        for path in paths:
            folder = _below(path).rpartition("/")[0]
            if folder not in by_folder:
                by_folder[folder] = [place for place in sorted(places) if (root / place[0] / folder).is_dir()]
            here = next((place for place in by_folder[folder] if _there(root, path, *place)), None)
            if here is not None:
                found[path] = _at(path, *here)
    return found


def _heads(root: Path, top: str, more: Sequence[str]) -> list[str]:
    """What may stand in the place of the first folder of a path; the listed one first."""
    if not top:
        return ["", *more]
    inner = [folder.name for folder in _folders(root / top)] if (root / top).is_dir() else []
    before = dict.fromkeys([top, *more])
    return [top, *(f"{folder}/{top}" for folder in before), *(f"{top}/{folder}" for folder in inner if folder != top)]


def _places(path: str, heads: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of what stands in the place of the first folder, and an ending; an empty one stands for the listed one."""
    ending = PurePosixPath(path).suffix
    endings = [other for other in _JPEG if other != ending] if ending.lower() in (".jpg", ".jpeg", "") else []
    if path.count("/") >= _TELLING:
        heads = [*heads, *others]
    return ((head, other) for head in heads for other in ["", *endings])


def _below(path: str) -> str:
    """Without the first folder."""
    return path.partition("/")[2] or path


def _at(path: str, head: str, ending: str) -> str:
    below = _below(path)
    renamed = below[: len(below) - len(PurePosixPath(below).suffix)] + ending if ending else below
    return f"{head}/{renamed}" if head else renamed


def _there(root: Path, path: str, head: str, ending: str) -> bool:
    return (root / _at(path, head, ending)).is_file()


def _folders(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not is_litter(inner.name))
