"""Where an index is kept: in a folder, in a folder of shards, in a file of Milvus, or on its server."""

from __future__ import annotations

from pathlib import Path

from oml_vit_ext.retrieval.index.image_index import ImageIndex
from oml_vit_ext.retrieval.index.milvus_index import MilvusIndex
from oml_vit_ext.retrieval.index.search_index import SearchIndex
from oml_vit_ext.retrieval.index.sharded_index import ShardedIndex, shard_folders


def is_milvus(place: Path | str) -> bool:
    """Whether it is a URL or a file of milvus-lite.

    >>> is_milvus("https://host:19530"), is_milvus("photos.db"), is_milvus("photo_index")
    (True, True, False)
    """
    return "://" in str(place) or str(place).endswith(".db")


def open_index(
    place: Path | str,
    *,
    collection: str = "images",
    root: Path | str | None = None,
    mmap: bool = False,
    trust_faiss_file: bool | None = None,
) -> ImageIndex:
    """The index that is at a place.

    Args:
        place: A folder that ``SearchIndex`` or ``ShardedIndex`` has saved, a file of milvus-lite (``.db``), or the URL
            of a Milvus server, whose token is in the environment: ``MILVUS_TOKEN``.
        collection: In Milvus.
        root: Where the images are now, if they have moved.
        mmap, trust_faiss_file: Of a folder, as for ``SearchIndex.load``.

    Raises:
        FileNotFoundError: There is none.
        ValueError, RuntimeError, ConnectionError, ImportError: It cannot be read.
    """
    if is_milvus(place):
        return MilvusIndex.open(str(place), collection=collection, root=root)
    kind = ShardedIndex if shard_folders(place) else SearchIndex
    return kind.load(place, root=root, mmap=mmap, trust_faiss_file=trust_faiss_file)
