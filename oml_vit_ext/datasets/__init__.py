"""Public retrieval data sets as dataframes of the host."""

from oml_vit_ext.datasets.convert import DATASETS, convert, join, list_images

__all__ = ["DATASETS", "convert", "join", "list_images"]
