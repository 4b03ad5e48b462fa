"""Rows of an embedding matrix, handed out in float32 blocks: the matrix itself is never copied as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.arrays import Floats, Ids

Embeddings = Tensor | NDArray[Any]  # (rows, dim), any floating type; a memory-mapped array is read block by block

_CHECKED_AT_ONCE = 65_536  # rows
_LONGEST = 9e18  # of a row: the squared distance of two such rows is what float32 just holds


class Rows:
    """Selected rows of ``(L, dim)`` embeddings, in the order of ``ids``; all of them without ``ids``.

    Half precision is upcast and tensors of other devices are moved, a block at a time.

    Raises:
        ValueError: The embeddings are not a matrix of floating-point numbers.
    """

    def __init__(self, embeddings: Embeddings, ids: Ids | None = None, name: str = "embeddings") -> None:
        check_matrix(embeddings, name)
        floating = embeddings.is_floating_point() if isinstance(embeddings, Tensor) else embeddings.dtype.kind == "f"
        if not floating:
            raise ValueError(f"{name} are of type {embeddings.dtype}, expected floating-point numbers.")
        if ids is not None and np.array_equal(ids, np.arange(len(embeddings))):
            ids = None  # every row in order: blocks can be views
        self.name = name
        self._embeddings = embeddings.detach() if isinstance(embeddings, Tensor) else embeddings
        self._ids = ids

    def __len__(self) -> int:
        return len(self._embeddings) if self._ids is None else len(self._ids)

    @property
    def dim(self) -> int:
        return int(self._embeddings.shape[1])

    def block(self, start: int, stop: int) -> Floats:
        """``(stop - start, dim)``, contiguous; a view of the embeddings where that is possible."""
        return self._float32(slice(start, stop) if self._ids is None else self._ids[start:stop])

    def take(self, positions: Ids) -> Floats:
        """The rows at these positions, ``(len(positions), dim)``."""
        return self._float32(positions if self._ids is None else self._ids[positions])

    def blocks(self, size: int) -> Iterator[tuple[int, Floats]]:
        """All rows in blocks of ``size``, each with the position of its first row."""
        for start in range(0, len(self), size):
            yield start, self.block(start, min(start + size, len(self)))

    def check(self) -> None:
        """Look at every row once.

        Raises:
            ValueError: There are no rows, or some hold NaN or infinity, only zeros, or numbers whose squared distances
                float32 cannot hold.
        """
        if len(self) == 0 or self.dim == 0:
            raise ValueError(f"{self.name} have shape ({len(self)}, {self.dim}): there is nothing to search.")
        too_large = _LONGEST / math.sqrt(self.dim)
        for start, rows in self.blocks(_CHECKED_AT_ONCE):
            largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))  # NaN if there is one in the row
            for found, what in (
                (~np.isfinite(largest), "NaN or infinity"),
                (largest == 0, "nothing but zeros"),
                (largest > too_large, f"numbers above {too_large:.1e}"),
            ):
                if found.any():
                    raise ValueError(
                        f"{self.name}: {int(found.sum())} of the rows {start} to {start + len(rows) - 1} hold {what} "
                        f"(the first: row {start + int(found.argmax())}), expected finite vectors of some length."
                    )

    def _float32(self, which: slice | Ids) -> Floats:
        if isinstance(self._embeddings, Tensor):
            index = which if isinstance(which, slice) else torch.from_numpy(which).to(self._embeddings.device)
            return np.ascontiguousarray(self._embeddings[index].float().cpu().numpy())
        return np.ascontiguousarray(self._embeddings[which], dtype=np.float32)


class StackedRows(Rows):
    """The rows of several matrices of one width, one below the other, without copying them together."""

    def __init__(self, parts: Sequence[Floats | Rows]) -> None:
        self.name = "embeddings"
        self._parts = [part if isinstance(part, Rows) else Rows(part) for part in parts]
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def dim(self) -> int:
        return self._parts[0].dim

    def block(self, start: int, stop: int) -> Floats:
        pieces = []
        for part, end in zip(self._parts, self._ends, strict=True):
            first, last = max(start, end - len(part)), min(stop, end)
            if first < last:
                pieces.append(part.block(first - (end - len(part)), last - (end - len(part))))
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty((0, self.dim), np.float32), *pieces])

    def take(self, positions: Ids) -> Floats:
        taken = np.empty((len(positions), self.dim), dtype=np.float32)
        owners = np.searchsorted(self._ends, positions, side="right")
        for owner in np.unique(owners):
            part, mine = self._parts[owner], owners == owner
            taken[mine] = part.take(positions[mine] - (self._ends[owner] - len(part)))
        return taken


def check_matrix(embeddings: Embeddings, name: str) -> None:
    """Raise a ``ValueError`` unless it is a tensor or an array of two dimensions."""
    if not isinstance(embeddings, (Tensor, np.ndarray)):
        raise ValueError(f"{name} are a {type(embeddings).__name__}, expected a torch tensor or a numpy array.")
    if isinstance(embeddings, Tensor) and (embeddings.is_meta or embeddings.layout != torch.strided):
        raise ValueError(f"{name} are of device {embeddings.device} and {embeddings.layout}, expected numbers.")
    if embeddings.ndim != 2:
        raise ValueError(f"{name} have shape {tuple(embeddings.shape)}, expected (rows, dim).")


def check_dims(queries: Rows, gallery: Rows) -> None:
    """Raise a ``ValueError`` unless both have the same dimension."""
    if queries.dim != gallery.dim:
        raise ValueError(
            f"{queries.name} have dimension {queries.dim}, but {gallery.name} have {gallery.dim}: expected the same. "
            f"Do both come from one model?"
        )
