"""The approximate index of kept embeddings: made when it is needed, brought up to date when images were added."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss

from oml_vit_ext.retrieval.engines import add_rows, build_index
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import MEMORY_MB

# An index that has grown to this many times the rows it was trained on is trained again.
_RETRAIN_AT = 2.0
# faiss's own writing is not safe in threads. One lock for the process, so that an index can be copied and pickled.
_UPDATING = threading.Lock()


class KeptFaiss:
    """A faiss index over the first rows of a table, and where it is on disk.

    Args:
        factory: Its faiss factory string.
    """

    def __init__(self, factory: str) -> None:
        self.factory = factory
        self.index: Any = None
        self.file = ""  # where it is, or an earlier state of it
        self.is_new = False  # not on disk yet
        self.n_trained = 0  # rows
        self._mapped = False

    def read(self, folder: Path, file: str, *, n_trained: int, n_rows: int, mmap: bool) -> None:
        """Take the index from ``folder / file``; without a file there is none yet.

        Raises:
            ValueError: It holds more than the ``n_rows`` of the table.
        """
        self.file, self.n_trained, self._mapped = file, n_trained, mmap
        if not file:
            return
        self.index = faiss.read_index(str(folder / file), faiss.IO_FLAG_MMAP if mmap else 0)
        if self.index.ntotal > n_rows:
            raise ValueError(
                f"{str(folder / file)!r} holds {self.index.ntotal} rows, expected at most {n_rows}, one for each "
                f"image: it is damaged. Make the index again."
            )

    def write(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    def forget(self) -> None:
        """A row was replaced, which most indexes cannot do: the index is made again when it is needed."""
        self.index, self.file = None, ""

    def leave_folder(self) -> None:
        """Nothing is on disk where the index is to be saved next."""
        self.file, self.is_new = "", self.index is not None

    def up_to_date(self, rows: Rows) -> Any:
        """The index over all rows. Several threads may ask at once."""
        with _UPDATING:
            if self.index is not None and self.index.ntotal == len(rows):
                return self.index
            if self.index is None or self._mapped or len(rows) > _RETRAIN_AT * self.n_trained:
                self.index = build_index(rows, self.factory, memory_mb=MEMORY_MB, verbose=False)
                self.n_trained = len(rows)
            else:
                add_rows(self.index, rows, start=self.index.ntotal, memory_mb=MEMORY_MB, verbose=False)
            self.is_new = True
            return self.index
