"""A run's folder, read back: what was configured, and the models that it left."""

from oml_vit_ext.runs.run_folder import RunFolder, best_checkpoint, is_run, read_run
from oml_vit_ext.runs.run_models import model_config, run_extractor, run_reranker, validation_images, with_weights
from oml_vit_ext.runs.validated_search import items_for, retrieve_as_validated

__all__ = [
    "RunFolder",
    "best_checkpoint",
    "is_run",
    "items_for",
    "model_config",
    "read_run",
    "retrieve_as_validated",
    "run_extractor",
    "run_reranker",
    "validation_images",
    "with_weights",
]
