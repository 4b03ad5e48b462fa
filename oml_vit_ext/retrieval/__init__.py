"""Search through faiss: OML's results at scale, an index to keep, the protocols of the benchmarks."""

from oml_vit_ext.retrieval.faiss_search import faiss_search
from oml_vit_ext.retrieval.index import (
    AddReport,
    Embedder,
    Fingerprint,
    Hit,
    ImageIndex,
    MilvusIndex,
    RayEmbedder,
    SearchIndex,
    ShardedIndex,
    list_images,
    locked,
    open_index,
    parse_box,
    rerank_hits,
    search_shards,
)
from oml_vit_ext.retrieval.retrieve import retrieve, retrieve_qg
from oml_vit_ext.retrieval.revisited import (
    embed_into,
    evaluate_revisited,
    evaluate_revisited_embeddings,
    load_revisited,
    stored_chunks,
)

__all__ = [
    "AddReport",
    "Embedder",
    "Fingerprint",
    "Hit",
    "ImageIndex",
    "MilvusIndex",
    "RayEmbedder",
    "SearchIndex",
    "ShardedIndex",
    "embed_into",
    "evaluate_revisited",
    "evaluate_revisited_embeddings",
    "faiss_search",
    "list_images",
    "load_revisited",
    "locked",
    "open_index",
    "parse_box",
    "rerank_hits",
    "retrieve",
    "retrieve_qg",
    "search_shards",
    "stored_chunks",
]
