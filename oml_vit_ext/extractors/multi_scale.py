"""Descriptors averaged over several scales of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor

from oml_vit_ext.extractors.pca import ExtractorWithPCA


def multi_scale(describe: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """Mean of the descriptors of ``images`` at each scale. ``(B, 3, H, W)`` -> ``(B, D)``.

    Images are resized bilinearly to ``scale * H`` by ``scale * W`` pixels, rounded, at least 1. The caller normalises.

    Args:
        describe: Images ``(B, 3, h, w)`` to descriptors ``(B, D)``.
        images: ``(B, 3, H, W)``.
        scales: Factors of the side; 1 is the image as it is.
    """
    return torch.stack([describe(rescale(images, scale)) for scale in scales]).mean(dim=0)


def rescale(images: Tensor, scale: float) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, C, h, w)``, bilinear."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """``scales`` as a tuple of floats; a ``ValueError`` unless there is at least one and all are positive."""
    given = tuple(float(scale) for scale in scales)
    if not given or not all(0 < scale < math.inf for scale in given):
        raise ValueError(f"scales is {list(scales)}, expected positive factors of the side, e.g. [0.75, 1, 1.25].")
    return given


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
