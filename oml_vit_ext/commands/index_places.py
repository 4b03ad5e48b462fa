"""Where an index is kept: in a folder, in a file of Milvus, or on its server. What is open is closed at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oml_vit_ext.retrieval import MilvusIndex, SearchIndex, locked

TOKEN = "MILVUS_TOKEN"


def is_milvus(place: str) -> bool:
    """Whether it is a URL or a file of milvus-lite.

    >>> is_milvus("https://host:19530"), is_milvus("photos.db"), is_milvus("photo_index")
    (True, True, False)
    """
    return "://" in place or place.endswith(".db")


@contextlib.contextmanager
def opened(
    place: str,
    *,
    collection: str = "images",
    root: Path | None = None,
    mmap: bool = False,
    trust_faiss_file: bool | None = None,
) -> Iterator[Any]:
    """The index that is there, to be asked.

    Raises:
        FileNotFoundError, ValueError: There is none.
    """
    if not is_milvus(place):
        yield SearchIndex.load(place, root=root, mmap=mmap, trust_faiss_file=trust_faiss_file)
        return
    index = MilvusIndex.open(place, collection=collection, root=root, token=os.environ.get(TOKEN, ""))
    try:
        yield index
    finally:
        index.close()


@contextlib.contextmanager
def changing(
    place: str, *, collection: str = "images", root: Path | None = None, trust_faiss_file: bool | None = None
) -> Iterator[Any]:
    """The same to be changed; a folder is locked meanwhile, and saved by the caller."""
    guard = contextlib.nullcontext() if is_milvus(place) else locked(Path(place).absolute())
    with guard, opened(place, collection=collection, root=root, trust_faiss_file=trust_faiss_file) as index:
        yield index


def exists(place: str, collection: str = "images") -> bool:
    """Whether there is an index to add to."""
    if not is_milvus(place):
        return (Path(place) / "manifest.json").is_file()
    if "://" not in place and not Path(place).exists():
        return False
    try:
        with opened(place, collection=collection):
            return True
    except FileNotFoundError:
        return False


def save(index: Any, place: str, *, finish: bool = True) -> None:
    """A folder is written; Milvus has it already."""
    if not is_milvus(place):
        index.save(Path(place).absolute(), finish=finish)


def described(index: Any, place: str) -> str:
    """One line: where it is, how many images it holds, of which kind it is."""
    kind = "" if is_milvus(place) else f", index {index.index}"
    return f"{place if is_milvus(place) else Path(place).absolute()}: {len(index)} images{kind}"
