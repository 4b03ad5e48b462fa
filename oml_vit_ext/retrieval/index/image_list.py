"""Which images an index is made of: every image below a folder, or the rows of a dataframe of OML."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pandas as pd
from oml.const import LABELS_COLUMN, PATHS_COLUMN, X1_COLUMN, X2_COLUMN, Y1_COLUMN, Y2_COLUMN

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.common.messages import counted
from oml_vit_ext.images.folders import image_files
from oml_vit_ext.images.formats import EXTENSIONS
from oml_vit_ext.retrieval.index.content import stamp

COLUMNS = ["key", "path", "box", "label", "size", "mtime_ns"]
_BOX_COLUMNS = [X1_COLUMN, Y1_COLUMN, X2_COLUMN, Y2_COLUMN]


def list_images(source: Path | str | pd.DataFrame, root: Path | str) -> pd.DataFrame:
    """The images of a folder or of a dataframe, in the columns of an index.

    The columns: ``path`` is relative to ``root`` with forward slashes; ``box`` is ``"x_1,y_1,x_2,y_2"`` or empty;
    ``label`` is text or empty; ``key`` is path and box, unique; ``size`` (bytes) and ``mtime_ns`` (the later of the
    times of content and of status, so that a file is noticed whose time was set back) tell whether the file changed, -1
    for a file that does not exist.

    Args:
        source: A folder (searched with its subfolders, links included), or a dataframe with OML's ``path``, and
            perhaps ``label`` and the four columns of a bounding box.
        root: Folder that paths are relative to, under whichever of its names.

    Raises:
        FileNotFoundError: There is no such folder.
        TypeError: ``source`` is neither.
        ValueError: The folder holds no image, a column is missing, an image lies outside ``root`` or is listed twice.
    """
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, Path(root))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"The images are {source!r:.80}, expected a folder or a dataframe with the column 'path'.")
    folder = Path(source)
    if not folder.is_dir():
        what = "is a file" if Path(source).is_file() else "does not exist"
        raise FileNotFoundError(f"The image folder {str(source)!r} {what}, expected a folder of images.")
    paths = sorted(path.absolute() for path in image_files(folder))
    if not paths:
        raise ValueError(f"The folder {str(folder)!r} holds no image ({', '.join(EXTENSIONS)}).")
    below = folder_below_root(folder, root)
    if below is None:  # it may be above
        listed = [relative_to_root(path, root) for path in paths]
    else:
        listed = [below + path.relative_to(folder.absolute()).as_posix() for path in paths]
    return _table(listed, [""] * len(paths), [""] * len(paths), Path(root))


def folder_below_root(folder: Path | str, root: Path | str) -> str | None:
    """What stands before the paths of a folder: ``"cats/"``, nothing for the root itself; ``None``: it is outside."""
    base, full = os.path.abspath(root), os.path.abspath(folder)
    below = _below(full, base)
    return None if below is None else "" if below == "." else f"{below}/"


def relative_to_root(path: Path | str, root: Path | str) -> str:
    """The path below ``root``, with forward slashes; links in it are not followed, but the root may have other names.

    Raises:
        ValueError: It lies outside.
    """
    base = os.path.abspath(root)
    below = _below(os.path.abspath(os.path.join(base, path)), base)
    if below in (None, "."):
        raise ValueError(
            f"The image {str(path)!r} lies outside the root {base!r} of the index, expected it below. "
            f"If the images have moved, open the index with root= (sync --root), the folder where they are now."
        )
    return str(below)


def _below(full: str, base: str) -> str | None:
    """The path from ``base`` to ``full``, both absolute, with forward slashes; ``None`` if it leads outside."""
    if os.path.commonpath([base, full]) == base:
        return Path(os.path.relpath(full, base)).as_posix()
    for parent in [Path(full), *Path(full).parents]:  # the same folder by another name, such as a link to it
        if _is_same(str(parent), base):
            return Path(full).relative_to(parent).as_posix()
    return None


def _is_same(folder: str, base: str) -> bool:
    try:
        return os.path.samefile(folder, base)
    except OSError:
        return False


def key_of(path: str, box: str) -> str:
    """What an index knows an image by."""
    return f"{path}#{box}" if box else path


def parse_box(box: str) -> Box | None:
    """``"1,2,3,4"`` -> ``(1, 2, 3, 4)``; empty -> ``None``."""
    if not box:
        return None
    x_1, y_1, x_2, y_2 = map(int, box.split(","))
    return x_1, y_1, x_2, y_2


def box_text(box: Box | None) -> str:
    """``(1, 2, 3, 4)`` -> ``"1,2,3,4"``; ``None`` -> empty."""
    return "" if box is None else ",".join(map(str, box))


def _from_frame(df: pd.DataFrame, root: Path) -> pd.DataFrame:
    if set(COLUMNS) <= set(df.columns):
        return df[COLUMNS].reset_index(drop=True)  # already listed
    if PATHS_COLUMN not in df:
        raise ValueError(f"The dataframe has the columns {list(map(str, df))}, expected {PATHS_COLUMN!r} among them.")
    given = [column for column in _BOX_COLUMNS if column in df]
    if given and len(given) < 4:
        raise ValueError(f"The dataframe has the columns {given} of a bounding box, expected none or {_BOX_COLUMNS}.")
    if df.empty:
        raise ValueError("The dataframe has no rows: there is no image to index.")
    boxes = [""] * len(df)
    if given:
        boxes = [
            "" if any(pd.isna(v) for v in row) else ",".join(str(int(v)) for v in row)
            for row in df[_BOX_COLUMNS].itertuples(index=False)
        ]
    if df[PATHS_COLUMN].isna().any():
        raise ValueError(
            f"Row {int(df[PATHS_COLUMN].isna().argmax())} of the dataframe has no path, expected one in each."
        )
    labels = [""] * len(df) if LABELS_COLUMN not in df else [_label(value) for value in df[LABELS_COLUMN]]
    return _table([_listed(str(path), root) for path in df[PATHS_COLUMN]], boxes, labels, root)


def _listed(path: str, root: Path) -> str:
    """The path below the root; tables that Windows wrote have ``\\`` between folders."""
    below = relative_to_root(path, root)
    if "\\" in path and not (root / below).exists():
        with contextlib.suppress(ValueError):
            other = relative_to_root(path.replace("\\", "/"), root)
            return other if (root / other).exists() else below
    return below


def _label(value: Any) -> str:
    """A column with empty cells holds whole numbers as floating-point ones."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _table(paths: list[str], boxes: list[str], labels: list[str], root: Path) -> pd.DataFrame:
    stamps = {path: stamp(root / path) for path in paths}
    keys = [key_of(path, box) for path, box in zip(paths, boxes, strict=True)]
    # As objects: pandas' own strings cannot hold names of files that are no UTF-8.
    texts = pd.DataFrame({"key": keys, "path": paths, "box": boxes, "label": labels}, dtype=object)
    table = texts.assign(
        size=[stamps[path][0] for path in paths],
        mtime_ns=[stamps[path][1] for path in paths],
    )
    twice = table.key[table.key.duplicated()]
    if len(twice):
        raise ValueError(
            f"{counted(len(twice), 'image is', 'images are')} listed more than once, the first: {twice.iloc[0]!r}."
        )
    return table
