"""Optimizers for OML's pipelines."""

from oml_vit_ext.optimizers.adamw_groups import AdamWGroups

__all__ = ["AdamWGroups"]
