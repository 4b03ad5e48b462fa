"""Optimizers for OML's pipelines, and the training of a head on embeddings."""

from oml_vit_ext.optimizers.adamw_groups import AdamWGroups
from oml_vit_ext.optimizers.head_fitting import fit_head

__all__ = ["AdamWGroups", "fit_head"]
