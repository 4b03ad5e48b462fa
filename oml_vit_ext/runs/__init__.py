"""A run's folder, read back: what was configured, and the models that it left."""

from oml_vit_ext.runs.run_folder import RunFolder, read_run
from oml_vit_ext.runs.run_models import run_extractor, run_reranker, validation_images

__all__ = ["RunFolder", "read_run", "run_extractor", "run_reranker", "validation_images"]
