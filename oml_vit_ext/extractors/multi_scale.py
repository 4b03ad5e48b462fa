"""Descriptors averaged over several scales of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
