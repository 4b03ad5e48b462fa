"""Public retrieval data sets as dataframes of the host."""

from oml_vit_ext.datasets.convert import DATASETS, convert, list_images
from oml_vit_ext.datasets.join import join

__all__ = ["DATASETS", "convert", "join", "list_images"]
