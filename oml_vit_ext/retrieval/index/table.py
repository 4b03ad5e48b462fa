"""Images and their embeddings, in the parts in which they were added and saved."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from oml_vit_ext.common.array_files import read_array, write_array
from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.retrieval.index.image_list import COLUMNS, key_of
from oml_vit_ext.retrieval.index.storage import Writer
from oml_vit_ext.retrieval.rows import Rows, StackedRows

# Of a path below the root: nothing, or something that begins at the top, with a drive, or climbs.
LEADS_OUT = r"^$|^/|(?:^|/)\.\.(?:/|$)|\x00"
if os.name == "nt":
    LEADS_OUT += r"|^\\|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"
_BOX = r"(?:-?\d{1,9},){3}-?\d{1,9}|"

STORED = [*COLUMNS, "digest"]  # of the file's content, empty if it is not known
_KEPT = [*STORED, "region"]  # whose parts are embedded too, as a box in px; empty without a grid
_DEFAULTS = {"digest": "", "region": ""}  # tables of earlier versions have no such columns

Files = list[tuple[str, str]]  # of each saved part: the table of images, the array of embeddings


class EmbeddingTable:
    """Row i of ``images`` (columns ``STORED`` and ``region``) belongs to row i of the embeddings.

    Args:
        per_image: Embeddings of one image, side by side in its row: more than one with a grid. ``rows()`` has them one
            below the other.
    """

    def __init__(self, per_image: int = 1) -> None:
        self.images = pd.DataFrame({column: [] for column in _KEPT})
        self.per_image = per_image
        self.files: Files = []
        self._parts: list[Floats] = []  # one array per saved file, then what is new
        self._row_of: dict[str, int] = {}  # key -> row
        self._rewritten: set[int] = set()  # saved parts with a changed image
        self._other_numbers: set[int] = set()  # of these, those with a changed embedding

    @classmethod
    def read(cls, folder: Path, files: Files, *, dim: int, mmap: bool, per_image: int = 1) -> EmbeddingTable:
        """The parts saved in ``folder``; with ``mmap``, the embeddings stay there and are not looked at.

        Raises:
            FileNotFoundError: A file is gone.
            ValueError: A file is no such table or array, they have different numbers of rows, an image lies outside of
                the root or is there twice, or the embeddings are not of width ``dim``, not finite or all zeros.
        """
        table = cls(per_image)
        table.files = files
        images = [_read_images(folder / name) for name, _ in files]
        table._parts = [read_array(folder / name, mmap=mmap) for _, name in files]
        for (name, array_name), part, array in zip(files, images, table._parts, strict=True):
            if array.shape != (len(part), per_image * dim) or array.dtype != np.float32:
                raise ValueError(
                    f"{str(folder / array_name)!r} holds {array.dtype} of shape {array.shape}, expected float32 of "
                    f"shape ({len(part)}, {per_image * dim}): a row for each image of {name}. Make the index again."
                )
            if not mmap:
                Rows(array.reshape(-1, dim), name=str(folder / array_name)).check()
        table.images = pd.concat(images, ignore_index=True) if images else table.images
        if table.images.key.duplicated().any():
            twice = table.images.key[table.images.key.duplicated()].iloc[0]
            raise ValueError(f"{str(folder)!r} holds the image {twice!r} twice. Make the index again.")
        table._row_of = {key: row for row, key in enumerate(table.images.key)}
        return table

    def __len__(self) -> int:
        return len(self.images)

    def rows(self) -> StackedRows:
        """All embeddings, ``(len(self) * per_image, dim)``: those of one image after those of another."""
        return StackedRows([part.reshape(-1, part.shape[1] // self.per_image) for part in self._parts])

    def stamps(self, keys: list[str]) -> dict[str, tuple[int, int, str, str]]:
        """Size, time and content of the files, and labels, as stored, of those of ``keys`` that are in the table."""
        found = [(key, self._row_of[key]) for key in keys if key in self._row_of]
        columns = (self.images[column].to_numpy() for column in ("size", "mtime_ns", "digest", "label"))
        sizes, times, contents, labels = columns
        return {key: (int(sizes[i]), int(times[i]), str(contents[i]), str(labels[i])) for key, i in found}

    def embeddings_of(self, keys: list[str]) -> Floats:
        """``(len(keys), per_image * dim)``; every key is in the table."""
        return StackedRows(self._parts).take(np.array([self._row_of[key] for key in keys], dtype=np.int64))

    def drop(self, keys: list[str]) -> None:
        """Take rows out; every key is in the table."""
        stays = ~self.images.key.isin(keys).to_numpy(dtype=bool)
        parts: list[Floats] = []
        files: Files = []
        rewritten: set[int] = set()
        other_numbers: set[int] = set()
        start = 0
        for number, part in enumerate(self._parts):
            mine = stays[start : start + len(part)]
            start += len(part)
            if not mine.any():
                continue
            if number < len(self.files):
                if number in self._rewritten or not mine.all():
                    rewritten.add(len(files))
                if number in self._other_numbers or not mine.all():
                    other_numbers.add(len(files))
                files.append(self.files[number])
            parts.append(part if mine.all() else part[mine])
        images = self.images[stays].reset_index(drop=True)
        row_of = {key: row for row, key in enumerate(images.key)}
        # All at once: an interruption may come anywhere before.
        self._parts, self.files, self._rewritten, self._other_numbers = parts, files, rewritten, other_numbers
        self.images, self._row_of = images, row_of

    def put(self, images: pd.DataFrame, embeddings: Floats) -> bool:
        """Append rows, or replace those whose key is there already; returns whether these have changed numbers.

        Where it is interrupted, or memory is short, the table has none of the new rows, and of the others some.
        """
        images = images.assign(**{k: v for k, v in _DEFAULTS.items() if k not in images})[_KEPT]
        is_known = np.array([key in self._row_of for key in images.key], dtype=bool)
        has_changed = bool(is_known.any()) and self._replace(images[is_known], embeddings[is_known])
        new = images[~is_known]
        if len(new):
            n_before, parts = len(self), [*self._parts, np.ascontiguousarray(embeddings[~is_known])]
            appended = pd.concat([self.images, new], ignore_index=True) if n_before else new.reset_index(drop=True)
            before = self.images, self._parts
            try:
                self._row_of.update((key, n_before + offset) for offset, key in enumerate(new.key))
                self.images, self._parts = appended, parts
            except BaseException:
                self.images, self._parts = before
                for key in new.key:
                    self._row_of.pop(key, None)
                raise
        return has_changed

    def join_new_parts(self) -> None:
        """Make one part of all that is not saved yet: it gets one file."""
        n_saved = len(self.files)
        if len(self._parts) > n_saved:
            self._parts = [*self._parts[:n_saved], np.concatenate(self._parts[n_saved:])]

    def files_to_write(self, generation: int) -> tuple[Files, dict[str, Writer]]:
        """What a save would leave on disk.

        Returns:
            The files that hold the whole table, and how to write those of them that are not there yet.
        """
        files: Files = []
        writers: dict[str, Writer] = {}
        start = 0
        for number, part in enumerate(self._parts):
            if number < len(self.files) and number not in self._rewritten:
                files.append(self.files[number])
            else:
                name = f"{generation:06d}-{number:06d}"
                table, array = f"images-{name}.csv", f"descriptors-{name}.npy"
                writers[table] = partial(_write_images, self.images[start : start + len(part)])
                if number < len(self.files) and number not in self._other_numbers:
                    array = self.files[number][1]  # its numbers are still those
                else:
                    writers[array] = partial(write_array, part)
                files.append((table, array))
            start += len(part)
        return files, writers

    def mark_saved(self, files: Files) -> None:
        """Remember that these files hold the whole table."""
        self.files = files
        self._rewritten, self._other_numbers = set(), set()

    def _replace(self, images: pd.DataFrame, embeddings: Floats) -> bool:
        """Write over the rows of these images; returns whether an embedding is another one than before."""
        rows = np.array([self._row_of[key] for key in images.key], dtype=np.int64)
        columns = {name: self.images[name].to_numpy(copy=True) for name in _KEPT}
        for name, column in columns.items():
            column[rows] = images[name].to_numpy()
        replaced = self.images.assign(**{name: pd.Series(c, dtype=c.dtype) for name, c in columns.items()})
        has_changed, start = False, 0
        for number, part in enumerate(self._parts):
            mine = (rows >= start) & (rows < start + len(part))
            if mine.any():
                self._rewritten.add(number)
                if not np.array_equal(part[rows[mine] - start], embeddings[mine]):
                    self._other_numbers.add(number)
                    part[rows[mine] - start] = embeddings[mine]
                    has_changed = True
            start += len(part)
        self.images = replaced  # last: an image that is interrupted before still counts as changed
        return has_changed


def _write_images(images: pd.DataFrame, path: Path) -> None:
    # Names of files may hold bytes that are no UTF-8: Python keeps those as surrogates.
    images.to_csv(path, index=False, errors="surrogateescape")


def _read_images(path: Path) -> pd.DataFrame:
    try:
        text = pd.read_csv(path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape")
        text = text.assign(**{k: v for k, v in _DEFAULTS.items() if k not in text})
        images = text[_KEPT].astype({"size": np.int64, "mtime_ns": np.int64})
    except (ValueError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is no table of images ({type(error).__name__}: {error}).") from error
    for column, what, is_wrong in (
        ("path", "a path below the root", images.path.str.contains(LEADS_OUT)),
        ("box", "four whole numbers or nothing", ~images.box.str.fullmatch(_BOX)),
        ("region", "four whole numbers or nothing", ~images.region.str.fullmatch(_BOX)),
    ):
        if is_wrong.any():
            raise ValueError(f"{str(path)!r} has the {column} {images[column][is_wrong].iloc[0]!r}, expected {what}.")
    for key, image, box in zip(images.key, images.path, images.box, strict=True):
        if key != key_of(image, box):  # an image is asked for by its key
            raise ValueError(f"{str(path)!r} has the key {key!r}, expected {key_of(image, box)!r}.")
    return images
