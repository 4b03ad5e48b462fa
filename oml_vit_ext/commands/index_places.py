"""An index wherever it is, for as long as a command needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval import ImageIndex, SearchIndex, ShardedIndex, locked, open_index
from oml_vit_ext.retrieval.index import is_milvus, shard_folders


@contextlib.contextmanager
def opened(place: str, **how: Any) -> Iterator[ImageIndex]:
    """The index that is there, to be asked; ``how`` as for ``open_index``.

    Raises:
        FileNotFoundError, ValueError: There is none.
    """
    with contextlib.closing(open_index(place, **how)) as index:
        yield index


@contextlib.contextmanager
def changing(place: str, **how: Any) -> Iterator[ImageIndex]:
    """The same to be changed; a folder is locked meanwhile, and saved by the caller."""
    if not is_milvus(place) and not exists(place):
        open_index(place)  # says what is there, before a lock is left in somebody's folder
    guard = contextlib.nullcontext() if is_milvus(place) else locked(Path(place).absolute())
    with guard, opened(place, **how) as index:
        yield index


def exists(place: str, collection: str = "images") -> bool:
    """Whether there is an index to add to."""
    if not is_milvus(place):
        return (Path(place) / "manifest.json").is_file() or bool(shard_folders(place))
    if "://" not in place and not Path(place).exists():
        return False
    try:
        with opened(place, collection=collection):
            return True
    except FileNotFoundError:
        return False


def save(index: ImageIndex, place: str, *, finish: bool = True) -> None:
    """A folder is written; Milvus has it already."""
    if isinstance(index, SearchIndex | ShardedIndex):
        index.save(Path(place).absolute(), finish=finish)


def saving_as_it_goes(index: ImageIndex, place: str, every: int) -> dict[str, Any]:
    """Arguments of ``add`` and ``sync`` for a long run: a bar is shown, and what is done is saved."""
    return {"verbose": True, "part_size": every, "after_part": lambda: save(index, place, finish=False)}


def save_and_tell(index: ImageIndex, place: str, done: object) -> None:
    """At the end: what was done, and what is there now."""
    save(index, place)
    print(f"{done}\n{described(index, place)}")


def described(index: ImageIndex, place: str) -> str:
    """One line: where it is, how many images it holds, of which kind it is."""
    kind = ""
    if isinstance(index, ShardedIndex):
        kind += f" in {counted(len(index.shards), 'shard')}"
    if isinstance(index, SearchIndex | ShardedIndex):
        kind += f", index {index.index}"
    return f"{place if is_milvus(place) else Path(place).absolute()}: {counted(len(index), 'image')}{kind}"
