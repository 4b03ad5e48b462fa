"""The approximate index of kept embeddings: made when it is needed, brought up to date when images were added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss

from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.engines import add_rows, build_index, reason
from oml_vit_ext.retrieval.forks import lock_across_forks
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import MEMORY_MB

_faiss: Any = faiss  # its stubs lack classes
# An index that has grown to this many times the rows it was trained on is trained again.
_RETRAIN_AT = 2.0
_LITTLE = 2**24  # bytes
# faiss's own writing is not safe in threads. One lock for the process, so that an index can be copied and pickled.
_UPDATING = lock_across_forks()


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

    def read(self, folder: Path, file: str, *, n_trained: int, n_rows: int, dim: int, mmap: bool) -> None:
        """Take the index from ``folder / file``; without a file there is none yet.

        Raises:
            FileNotFoundError: The file is gone.
            ValueError: faiss cannot read it, it is of another width than ``dim``, or it holds more than the ``n_rows``
                of the table.
        """
        self.file, self.n_trained, self._mapped = file, n_trained, mmap
        if not file:
            return
        self.index = _read(folder / file, mmap)
        if self.index.d != dim:
            raise ValueError(
                f"{str(folder / file)!r} is of width {self.index.d}, expected {dim} as the embeddings: it is damaged. "
                f"Make the index again."
            )
        if self.index.ntotal > n_rows:
            raise ValueError(
                f"{str(folder / file)!r} holds {counted(self.index.ntotal, 'row')}, expected at most {n_rows}, "
                f"one for each image: it is damaged. Make the index again."
            )

    def write(self, path: Path) -> None:
        # Through Python: faiss's own writer only prints that the end of a file found no room on the disk.
        with path.open("wb") as file:
            _faiss.write_index(self.index, _faiss.PyCallbackIOWriter(file.write))

    def forget(self) -> None:
        """A row was replaced, which most indexes cannot do: the index is made again when it is needed."""
        self.index, self.file, self.is_new = None, "", False

    def leave_folder(self) -> None:
        """Nothing is on disk where the index is to be saved next."""
        self.file, self.is_new = "", self.index is not None

    def holds(self, n_rows: int) -> bool:
        """Whether it is there, over so many rows."""
        return self.index is not None and self.index.ntotal == n_rows

    def up_to_date(self, rows: Rows) -> Any:
        """The index over all rows. Several threads may ask at once."""
        with _UPDATING:
            if self.holds(len(rows)):
                return self.index
            if self.index is None or self._mapped or len(rows) > _RETRAIN_AT * self.n_trained:
                self.index = build_index(rows, self.factory, memory_mb=MEMORY_MB, verbose=False)
                self.n_trained = len(rows)
            else:
                add_rows(self.index, rows, start=self.index.ntotal, memory_mb=MEMORY_MB, verbose=False)
            self.is_new = True
            return self.index


def _read(file: Path, mmap: bool) -> Any:
    with _UPDATING, _bounded_by(file):
        try:
            return faiss.read_index(str(file), faiss.IO_FLAG_MMAP if mmap else 0)
        except (RuntimeError, MemoryError) as error:
            if not file.is_file():
                raise FileNotFoundError(f"{str(file)!r} is gone.") from error
            raise ValueError(
                f"{str(file)!r} cannot be read by faiss ({reason(error)}). Make the index again."
            ) from error


@contextmanager
def _bounded_by(file: Path) -> Iterator[None]:
    """faiss takes no more memory for one list of a file than the file has bytes, or little. One limit for the process.

    Some indexes announce more than they store: ``LSH`` a matrix that is empty.
    """
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):  # before faiss 1.14
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(max(_LITTLE, file.stat().st_size if file.is_file() else 0))
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)
