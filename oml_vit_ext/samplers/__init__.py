"""Batch samplers of OML's interface."""

from oml_vit_ext.samplers.group_size import GroupSizeSampler
from oml_vit_ext.samplers.hard_tuples import HardTuplesSampler
from oml_vit_ext.samplers.nearest_pairs import NearestPairsSampler

__all__ = ["GroupSizeSampler", "HardTuplesSampler", "NearestPairsSampler"]
