"""Batch samplers of OML's interface."""

from oml_vit_ext.samplers.group_size import GroupSizeSampler
from oml_vit_ext.samplers.hard_tuples import HardTuplesSampler

__all__ = ["GroupSizeSampler", "HardTuplesSampler"]
