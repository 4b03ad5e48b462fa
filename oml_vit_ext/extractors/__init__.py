"""Images ``(B, 3, H, W)`` to embeddings ``(B, feat_dim)``."""

from oml_vit_ext.extractors.head import ExtractorWithHead, load_head, save_head
from oml_vit_ext.extractors.hybrid import HybridViTExtractor
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.momentum import ExtractorWithMomentum
from oml_vit_ext.extractors.pca import ExtractorWithPCA, fit_pca, save_pca

__all__ = [
    "ExtractorWithHead",
    "ExtractorWithMomentum",
    "ExtractorWithPCA",
    "HybridViTExtractor",
    "IRTExtractor",
    "fit_pca",
    "load_head",
    "save_head",
    "save_pca",
]
