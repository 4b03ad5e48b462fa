"""Images and their embeddings, in the parts in which they were added and saved."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.retrieval.index.image_list import COLUMNS
from oml_vit_ext.retrieval.index.storage import Writer
from oml_vit_ext.retrieval.rows import StackedRows

STORED = [*COLUMNS, "digest"]  # of the file's content, empty if it is not known

Files = list[tuple[str, str]]  # of each saved part: the table of images, the array of embeddings


class EmbeddingTable:
    """Row i of ``images`` (columns ``STORED``) belongs to row i of ``rows()``."""

    def __init__(self) -> None:
        self.images = pd.DataFrame({column: [] for column in STORED})
        self.files: Files = []
        self._parts: list[Floats] = []  # one array per saved file, then what is new
        self._row_of: dict[str, int] = {}  # key -> row
        self._rewritten: set[int] = set()  # saved parts with a changed image

    @classmethod
    def read(cls, folder: Path, files: Files, *, mmap: bool) -> EmbeddingTable:
        """The parts saved in ``folder``; with ``mmap``, the embeddings stay there."""
        table = cls()
        table.files = files
        read = [_read_images(folder / images) for images, _ in files]
        table.images = pd.concat(read, ignore_index=True) if read else table.images
        table._parts = [np.load(folder / name, mmap_mode="r" if mmap else None) for _, name in files]
        table._row_of = {key: row for row, key in enumerate(table.images.key)}
        return table

    def __len__(self) -> int:
        return len(self.images)

    def rows(self) -> StackedRows:
        """All embeddings, ``(len(self), dim)``."""
        return StackedRows(self._parts)

    def stamps(self, keys: list[str]) -> dict[str, tuple[int, int, str]]:
        """Size, time and content of the files, as stored, of those of ``keys`` that are in the table."""
        found = [(key, self._row_of[key]) for key in keys if key in self._row_of]
        sizes, times, contents = (self.images[column].to_numpy() for column in ("size", "mtime_ns", "digest"))
        return {key: (int(sizes[row]), int(times[row]), str(contents[row])) for key, row in found}

    def embeddings_of(self, keys: list[str]) -> Floats:
        """``(len(keys), dim)``; every key is in the table."""
        return self.rows().take(np.array([self._row_of[key] for key in keys], dtype=np.int64))

    def drop(self, keys: list[str]) -> None:
        """Take rows out; every key is in the table."""
        stays = ~self.images.key.isin(keys).to_numpy(dtype=bool)
        parts: list[Floats] = []
        files: Files = []
        rewritten: set[int] = set()
        start = 0
        for number, part in enumerate(self._parts):
            mine = stays[start : start + len(part)]
            start += len(part)
            if not mine.any():
                continue
            if number < len(self.files):
                if number in self._rewritten or not mine.all():
                    rewritten.add(len(files))
                files.append(self.files[number])
            parts.append(part if mine.all() else part[mine])
        self._parts, self.files, self._rewritten = parts, files, rewritten
        self.images = self.images[stays].reset_index(drop=True)
        self._row_of = {key: row for row, key in enumerate(self.images.key)}

    def put(self, images: pd.DataFrame, embeddings: Floats) -> bool:
        """Append rows, or replace those whose key is there already; returns whether any was replaced."""
        images = images.assign(**({} if "digest" in images else {"digest": ""}))[STORED]
        is_known = np.array([key in self._row_of for key in images.key], dtype=bool)
        for position in np.flatnonzero(is_known):
            self._replace(self._row_of[images.key.iloc[position]], images.iloc[position], embeddings[position])
        new = images[~is_known]
        if len(new):
            self._row_of.update((key, len(self) + offset) for offset, key in enumerate(new.key))
            self.images = pd.concat([self.images, new], ignore_index=True) if len(self) else new.reset_index(drop=True)
            self._parts.append(np.ascontiguousarray(embeddings[~is_known]))
        return bool(is_known.any())

    def join_new_parts(self) -> None:
        """Make one part of all that is not saved yet: it gets one file."""
        n_saved = len(self.files)
        if len(self._parts) > n_saved:
            self._parts[n_saved:] = [np.concatenate(self._parts[n_saved:])]

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
                files.append((f"images-{name}.csv", f"descriptors-{name}.npy"))
                writers[files[-1][0]] = partial(_write_images, self.images[start : start + len(part)])
                writers[files[-1][1]] = partial(_write_array, part)
            start += len(part)
        return files, writers

    def mark_saved(self, files: Files) -> None:
        """Remember that these files hold the whole table."""
        self.files = files
        self._rewritten.clear()

    def _replace(self, row: int, image: pd.Series, embedding: Floats) -> None:
        self.images.iloc[row] = image
        start = 0
        for number, part in enumerate(self._parts):
            if row < start + len(part):
                part[row - start] = embedding
                self._rewritten.add(number)
                return
            start += len(part)


def _write_images(images: pd.DataFrame, path: Path) -> None:
    # Names of files may hold bytes that are no UTF-8: Python keeps those as surrogates.
    images.to_csv(path, index=False, errors="surrogateescape")


def _read_images(path: Path) -> pd.DataFrame:
    text = pd.read_csv(path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape")
    return text.assign(**({} if "digest" in text else {"digest": ""})).astype({"size": np.int64, "mtime_ns": np.int64})


def _write_array(array: Floats, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array)
