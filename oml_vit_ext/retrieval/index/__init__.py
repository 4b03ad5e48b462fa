"""An index of images that people keep: in a folder through faiss, or in Milvus."""

from oml_vit_ext.retrieval.index.embedder import Embedder
from oml_vit_ext.retrieval.index.fingerprint import Fingerprint
from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex
from oml_vit_ext.retrieval.index.image_list import list_images, parse_box
from oml_vit_ext.retrieval.index.milvus_index import MilvusIndex
from oml_vit_ext.retrieval.index.places import is_milvus, open_index
from oml_vit_ext.retrieval.index.ray_embedder import RayEmbedder
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits
from oml_vit_ext.retrieval.index.search_index import SearchIndex
from oml_vit_ext.retrieval.index.sharded_index import ShardedIndex, shard_folders, shard_number
from oml_vit_ext.retrieval.index.shards import search_shards
from oml_vit_ext.retrieval.index.storage import locked
from oml_vit_ext.retrieval.index.update import AddReport

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
    "is_milvus",
    "list_images",
    "locked",
    "open_index",
    "parse_box",
    "rerank_hits",
    "search_shards",
    "shard_folders",
    "shard_number",
]
