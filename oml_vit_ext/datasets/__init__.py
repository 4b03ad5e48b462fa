"""Public retrieval data sets as dataframes of OML."""

from oml_vit_ext.datasets.convert import DATASETS, convert, list_images, read_listing
from oml_vit_ext.datasets.join import join

__all__ = ["DATASETS", "convert", "join", "list_images", "read_listing"]
