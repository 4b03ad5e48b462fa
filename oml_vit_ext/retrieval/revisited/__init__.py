"""Revisited Oxford and Paris: the data, the protocol, and a million distractors."""

from oml_vit_ext.datasets.revisited import RevisitedData, distractor_paths, load_revisited
from oml_vit_ext.retrieval.revisited.distractors import evaluate_revisited_embeddings
from oml_vit_ext.retrieval.revisited.embedding_files import check_model, embed_into, n_stored, stored_chunks
from oml_vit_ext.retrieval.revisited.protocol import evaluate_revisited

__all__ = [
    "RevisitedData",
    "check_model",
    "distractor_paths",
    "embed_into",
    "evaluate_revisited",
    "evaluate_revisited_embeddings",
    "load_revisited",
    "n_stored",
    "stored_chunks",
]
