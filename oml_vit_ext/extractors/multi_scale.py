"""Embeddings averaged over several scales of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor

from oml_vit_ext.extractors.pca import ExtractorWithPCA
from oml_vit_ext.extractors.wrapped import WrappedExtractor


def multi_scale(embed: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """Mean of the embeddings of ``images`` at each scale. ``(B, 3, H, W)`` -> ``(B, D)``.

    Images are resized bilinearly to ``scale * H`` by ``scale * W`` pixels, rounded, at least 1. The caller normalises.

    Args:
        embed: Images ``(B, 3, h, w)`` to embeddings ``(B, D)``.
        images: ``(B, 3, H, W)``.
        scales: Factors of the side; 1 is the image as it is.
    """
    return torch.stack([embed(rescale(images, scale)) for scale in scales]).mean(dim=0)


def rescale(images: Tensor, scale: float) -> Tensor:
    """Images with sides times ``scale``, bilinear, at least 1 pixel. ``(B, C, H, W)`` -> ``(B, C, h, w)``."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """``scales`` as a tuple of floats.

    Raises:
        ValueError: There are none, or one is not positive and finite.
    """
    given = tuple(float(scale) for scale in scales)
    if not given or not all(0 < scale < math.inf for scale in given):
        raise ValueError(f"scales is {list(scales)}, expected positive factors of the side, e.g. [0.75, 1, 1.25].")
    return given


class AtScales(WrappedExtractor):
    """Mean of an extractor's embeddings over ``scales`` of the image, scaled to length 1. For evaluation.

    Args:
        extractor: Any extractor.
        scales: Factors of the image's sides; 1 is the image as it is.

    Raises:
        ValueError: ``scales`` are none, or not all positive.

    >>> import torch
    >>> from oml_vit_ext.extractors import IRTExtractor
    >>> irt = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 1, "img_size": 32})
    >>> AtScales(irt, [0.5, 1]).eval()(torch.rand(2, 3, 32, 48)).shape
    torch.Size([2, 192])
    """

    def __init__(self, extractor: IExtractor, scales: Sequence[float]) -> None:
        super().__init__(extractor)
        self.scales = check_scales(scales)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)``."""
        return F.normalize(multi_scale(self.extractor, x, self.scales), dim=-1)

    def extra_repr(self) -> str:
        return f"scales={self.scales}"


def at_scales(extractor: IExtractor, scales: Sequence[float]) -> IExtractor:
    """The extractor at these scales; a PCA comes after the mean, as in the landmark literature.

    ``extractor`` stays as it is; the result shares its weights.

    Args:
        extractor: Any extractor.
        scales: See :class:`AtScales`.

    Raises:
        ValueError: ``scales`` are none, or not all positive.
    """
    if isinstance(extractor, ExtractorWithPCA):
        return extractor.around(AtScales(extractor.extractor, scales))
    return AtScales(extractor, scales)
