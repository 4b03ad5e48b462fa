"""Public retrieval data sets as dataframes of OML."""

from oml_vit_ext.datasets.convert import DATASETS, convert, list_images, read_listing
from oml_vit_ext.datasets.held_out import hold_out
from oml_vit_ext.datasets.join import join

__all__ = ["DATASETS", "convert", "hold_out", "join", "list_images", "read_listing"]
