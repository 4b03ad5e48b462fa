"""Any extractor, its descriptors averaged over several scales of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor

from oml_vit_ext.extractors.multi_scale import check_scales, multi_scale
from oml_vit_ext.extractors.pca import ExtractorWithPCA


class AtScales(IExtractor):
    """Mean of an extractor's descriptors over ``scales`` of the image, scaled to length 1. For evaluation.

    Args:
        extractor: Any extractor.
        scales: Factors of the image's sides; 1 is the image as it is.
    """

    def __init__(self, extractor: IExtractor, scales: Sequence[float]) -> None:
        super().__init__()
        self.extractor = extractor
        self.scales = check_scales(scales)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)``."""
        return F.normalize(multi_scale(self.extractor, x, self.scales), dim=-1)

    @property
    def feat_dim(self) -> int:
        return int(self.extractor.feat_dim)


def at_scales(extractor: IExtractor, scales: Sequence[float]) -> IExtractor:
    """The extractor at these scales; a PCA comes after the mean, as in the landmark literature."""
    if isinstance(extractor, ExtractorWithPCA):
        extractor.extractor = AtScales(extractor.extractor, scales)
        return extractor
    return AtScales(extractor, scales)
