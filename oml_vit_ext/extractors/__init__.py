"""Images ``(B, 3, H, W)`` to descriptors ``(B, feat_dim)``."""

from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.momentum import ExtractorWithMomentum

__all__ = ["ExtractorWithMomentum", "IRTExtractor"]
