"""Several indexes of one model, searched as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex
from oml_vit_ext.retrieval.index.postprocessing import postprocessed_hits
from oml_vit_ext.retrieval.index.search_index import SearchIndex
from oml_vit_ext.retrieval.old_names import takes_descriptors
from oml_vit_ext.retrieval.rows import Embeddings
from oml_vit_ext.retrieval.search_space import SearchesAgain
from oml_vit_ext.retrieval.settings import MEMORY_MB, Settings


@takes_descriptors
def search_shards(
    shards: Sequence[ImageIndex],
    embeddings: Embeddings,
    k: int = 10,
    *,
    search_params: str = "",
    memory_mb: float = MEMORY_MB,
    postprocessor: SearchesAgain | None = None,
    first_dims: int | None = None,
    shortlist: int = 100,
) -> list[list[Hit]]:
    """The ``k`` nearest images over several indexes of one model, in folders or in Milvus.

    Paths of hits count from the root of the first; of an index with another root they are whole.

    A postprocessor sees all shards as one gallery: it gives what it gives on an index of all their images. A gallery
    expanded by ``database_side`` is not kept for the next call.

    Args:
        shards: At least one.
        embeddings, k, search_params, memory_mb, postprocessor: As for ``search`` of these indexes.
        first_dims, shortlist: As for ``search`` of a ``SearchIndex``; each shard has its own shortlist.

    Raises:
        ValueError: As for ``search``; shards of several models; or ``first_dims`` with a shard in Milvus.
    """
    shards = [part for shard in shards for part in shard.parts]
    if not shards:
        raise ValueError("shards is empty, expected at least one index.")
    for shard in shards[1:]:
        shards[0].check_model(shard.fingerprint, "another shard")
    how: dict[str, Any] = {"search_params": search_params}
    if first_dims is not None:
        for shard in shards:
            if not isinstance(shard, SearchIndex):
                raise ValueError(
                    f"first_dims is {first_dims}, expected None for a {type(shard).__name__}: first dimensions are "
                    f"searched in a SearchIndex."
                )
        how |= {"first_dims": first_dims, "shortlist": shortlist, "postprocessor": postprocessor}
    elif postprocessor is not None:
        queries = shards[0]._checked(embeddings, k)
        settings = Settings(search_params=search_params, memory_mb=memory_mb)
        return postprocessed_hits(shards, queries, k, settings, postprocessor)
    found, base = [], shards[0].root
    for shard in shards:
        more = {**how, "memory_mb": memory_mb} if isinstance(shard, SearchIndex) else how
        hits = shard.search(embeddings, k, **more)
        found.append([[hit.seen_from(base, shard.root) for hit in of_query] for of_query in hits])
    return [sorted(chain(*hits), key=lambda hit: hit.distance)[:k] for hits in zip(*found, strict=True)]
