"""Search through faiss: the host's results at scale, an index to keep, the protocols of the benchmarks."""

from oml_vit_ext.retrieval.distractors import evaluate_revisited_embeddings, stored_chunks
from oml_vit_ext.retrieval.embedder import Embedder
from oml_vit_ext.retrieval.fingerprint import Fingerprint
from oml_vit_ext.retrieval.host_search import faiss_search
from oml_vit_ext.retrieval.image_index import AddReport, Hit
from oml_vit_ext.retrieval.image_list import list_images
from oml_vit_ext.retrieval.index_files import locked
from oml_vit_ext.retrieval.milvus import MilvusIndex
from oml_vit_ext.retrieval.rerank_hits import rerank_hits
from oml_vit_ext.retrieval.retrieve import retrieve, retrieve_qg
from oml_vit_ext.retrieval.revisited import evaluate_revisited
from oml_vit_ext.retrieval.revisited_data import load_revisited
from oml_vit_ext.retrieval.search_index import SearchIndex, search_shards

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
