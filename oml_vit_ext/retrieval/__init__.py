"""Search through faiss: OML's results at scale, an index to keep, the protocols of the benchmarks."""

from oml_vit_ext.datasets.revisited import load_revisited
from oml_vit_ext.retrieval.faiss_search import faiss_search
from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_index import AddReport, Hit
from oml_vit_ext.retrieval.index.image_list import list_images
from oml_vit_ext.retrieval.index.milvus_index import MilvusIndex
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits
from oml_vit_ext.retrieval.index.search_index import SearchIndex, search_shards
from oml_vit_ext.retrieval.index.storage import locked
from oml_vit_ext.retrieval.retrieve import retrieve, retrieve_qg
from oml_vit_ext.retrieval.revisited.distractors import evaluate_revisited_embeddings, stored_chunks
from oml_vit_ext.retrieval.revisited.protocol import evaluate_revisited

__all__ = [
    "AddReport",
    "Embedder",
    "Fingerprint",
    "Hit",
    "MilvusIndex",
    "SearchIndex",
    "evaluate_revisited",
    "evaluate_revisited_embeddings",
    "faiss_search",
    "list_images",
    "load_revisited",
    "locked",
    "rerank_hits",
    "retrieve",
    "retrieve_qg",
    "search_shards",
    "stored_chunks",
]
