"""An index in several folders: each image in one of them, told by its name."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oml_vit_ext.common.arrays import Floats
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex, Searchable
from oml_vit_ext.retrieval.index.search_index import SearchIndex
from oml_vit_ext.retrieval.index.shards import search_shards
from oml_vit_ext.retrieval.index.storage import MANIFEST, check_target
from oml_vit_ext.retrieval.index.update import Known
from oml_vit_ext.retrieval.rows import Embeddings
from oml_vit_ext.retrieval.settings import EXACT, Settings

_NAME = re.compile(r"shard_(\d+)_of_(\d+)")
_MOST_SHARDS = 100_000  # each is an object, also without images


class ShardedIndex(ImageIndex):
    """Several :class:`SearchIndex` of one model that answer as one.

    ``save`` writes them into the folders ``shard_0_of_8``, ``shard_1_of_8``, ... of a folder; each can be moved to a
    machine of its own and is an index by itself. What is new goes into the shard of :func:`shard_number`; what is in
    one stays there. A shard without images has no folder.

    Use :meth:`create` or :meth:`load`.

    Args:
        shards: At least one, of one model, root and grid.

    Raises:
        ValueError: They are not.
    """

    def __init__(self, shards: Sequence[SearchIndex]) -> None:
        check_whole("the number of shards", len(shards), 1)
        first = shards[0]
        super().__init__(first.root, first.fingerprint, first.config)
        self.moved_from = first.moved_from
        for shard in shards[1:]:
            first.check_model(shard.fingerprint, "another shard")
            if (shard.root, shard.grid) != (first.root, first.grid):
                raise ValueError(
                    f"A shard has root {str(shard.root)!r} and grid {shard.grid}, expected {str(first.root)!r} and "
                    f"{first.grid} as in the others. If the images have moved, load the index with root=."
                )
        self.shards = list(shards)
        self.index = first.index
        self.grid = first.grid

    @classmethod
    def create(
        cls,
        root: Path | str,
        fingerprint: Fingerprint,
        n_shards: int,
        index: str = EXACT,
        config: Mapping[str, Any] | None = None,
        *,
        grid: int = 0,
    ) -> ShardedIndex:
        """``n_shards`` empty shards; the other arguments and errors as for :class:`SearchIndex`."""
        check_whole("n_shards", n_shards, 1, _MOST_SHARDS)
        return cls([SearchIndex(root, fingerprint, index, config, grid=grid) for _ in range(n_shards)])

    @classmethod
    def load(cls, folder: Path | str, **how: Any) -> ShardedIndex:
        """The shards of a folder; ``how`` as for :meth:`SearchIndex.load`.

        Raises:
            FileNotFoundError: There are none.
            ValueError: The folder holds shards of two indexes, or as for :meth:`SearchIndex.load`.
        """
        found = shard_folders(folder)
        if not found:
            raise FileNotFoundError(f"{str(folder)!r} holds no shards, expected folders such as 'shard_0_of_8'.")
        loaded = {i: SearchIndex.load(path, **how) for i, path in enumerate(found) if (path / MANIFEST).is_file()}
        some = next(iter(loaded.values()))

        def empty() -> SearchIndex:
            return SearchIndex(some.root, some.fingerprint, some.index, some.config, grid=some.grid)

        return cls([loaded[i] if i in loaded else empty() for i in range(len(found))])

    def save(self, folder: Path | str, *, finish: bool = True) -> None:
        """Write what is new in each shard; arguments and errors as for :meth:`SearchIndex.save`."""
        if not len(self) and all(shard._manifest is None for shard in self.shards):
            raise ValueError(f"There are no images to save in {str(folder)!r}.")
        present = shard_folders(folder)
        if (Path(folder) / MANIFEST).is_file() or len(present) not in (0, len(self.shards)):
            what = counted(len(present), "shard") if present else "an index that is one folder"
            raise FileExistsError(
                f"The folder {str(folder)!r} holds {what}, expected {counted(len(self.shards), 'shard')} or nothing: "
                f"choose another one."
            )
        targets = [Path(folder).absolute() / f"shard_{i}_of_{len(self.shards)}" for i in range(len(self.shards))]
        for shard, target in zip(self.shards, targets, strict=True):  # all before the first is written
            check_target(target, shard._folder, shard._manifest)
        for shard, target in zip(self.shards, targets, strict=True):
            if len(shard) or shard._manifest is not None:  # those without images have no folder
                shard.save(target, finish=finish)

    @property
    def images(self) -> pd.DataFrame:
        """The images of all shards, with the columns of :attr:`SearchIndex.images`."""
        filled = [shard.images for shard in self.shards if len(shard)] or [self.shards[0].images]
        return pd.concat(filled, ignore_index=True)

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def parts(self) -> Sequence[SearchIndex]:
        return [shard for shard in self.shards if len(shard)] or self.shards[:1]

    def search(self, embeddings: Embeddings, k: int = 10, *, search_params: str = "", **more: Any) -> list[list[Hit]]:
        """As in :class:`ImageIndex`: the nearest of all shards; ``more`` as for :func:`search_shards`.

        Raises:
            ValueError: As for :meth:`SearchIndex.search`.
        """
        return search_shards([self], embeddings, k, search_params=search_params, **more)

    def _searchable(self, settings: Settings) -> Searchable:
        # Never reached: whoever searches takes the ``parts``, which postprocessors see as one gallery.
        raise NotImplementedError("Postprocessors search the parts of an index of shards together.")

    def _stamps(self, keys: list[str]) -> dict[str, Known]:
        return {key: known for shard in self.shards for key, known in shard._stamps(keys).items()}

    def _embeddings_of(self, keys: list[str]) -> Floats:
        row_of: dict[int, Floats] = {}
        for shard, positions in self._held(keys):
            row_of.update(zip(positions, shard._embeddings_of([keys[i] for i in positions]), strict=True))
        return np.stack([row_of[i] for i in range(len(keys))])

    def _drop(self, keys: list[str]) -> None:
        for shard, positions in self._held(keys):
            shard._drop([keys[i] for i in positions])

    def _store(self, images: pd.DataFrame, embeddings: Floats) -> None:
        keys = images.key.tolist()
        belongs = np.array([shard_number(key, len(self.shards)) for key in keys])
        for i, shard in enumerate(self.shards):
            held = shard._stamps(keys)
            belongs[[key in held for key in keys]] = i
        for i, shard in enumerate(self.shards):
            mine = belongs == i
            if mine.any():
                shard._store(images[mine].reset_index(drop=True), embeddings[mine])

    def _held(self, keys: list[str]) -> Iterator[tuple[SearchIndex, list[int]]]:
        """Shards, and the positions of those keys that each holds."""
        for shard in self.shards:
            held = shard._stamps(keys)
            if held:
                yield shard, [i for i, key in enumerate(keys) if key in held]


def shard_number(key: str, n_shards: int) -> int:
    """In which of ``n_shards`` an image belongs: by its name, so that it stays there when others come."""
    return zlib.crc32(os.fsencode(key)) % n_shards


def shard_folders(folder: Path | str) -> list[Path]:
    """Where the shards of an index are, or would be if they had images; empty if there are none.

    Raises:
        ValueError: They are of two indexes, or of more shards than an index can have.
    """
    found = [_NAME.fullmatch(path.name) for path in Path(folder).glob("shard_*") if (path / MANIFEST).is_file()]
    numbers = {int(name[2]) for name in found if name and int(name[1]) < int(name[2])}
    if len(numbers) > 1:
        told = " and of ".join(map(str, sorted(numbers)))
        raise ValueError(f"{str(folder)!r} holds shards of {told}, expected those of one index.")
    for number in numbers:
        check_whole(f"The number of shards in {str(folder)!r}", number, 1, _MOST_SHARDS)
    return [Path(folder) / f"shard_{i}_of_{n}" for n in numbers for i in range(n)]
