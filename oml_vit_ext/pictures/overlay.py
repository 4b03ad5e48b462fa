"""From tensors to pictures: normalisation undone, maps brought to the image's size and laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oml_vit_ext.pictures.drawing import Picture

_COLOURS = "inferno"
_OPACITY = 0.6


def to_picture(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Picture:
    """A normalised image ``(3, H, W)`` -> ``(H, W, 3)`` with values from 0 to 1."""
    colours = image.detach().float().cpu() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return colours.clamp(0, 1).permute(1, 2, 0).numpy()


def mean_and_std(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What a transform of torchvision or albumentations normalises with; 0 and 1 if it does not normalise."""
    for step in reversed(getattr(transform, "transforms", ())):
        if hasattr(step, "mean") and hasattr(step, "std"):
            return tuple(map(float, step.mean)), tuple(map(float, step.std))
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def enlarge_maps(maps: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Maps over patches ``(B, h, w)`` -> maps over pixels ``(B, H, W)``, bilinear.

    Args:
        maps: From the patches of images that were enlarged to whole patches, as all extractors here do it.
        size: H and W of the images before that.
        stride: Pixels per patch, vertically and horizontally.
    """
    whole = (maps.shape[1] * stride[0], maps.shape[2] * stride[1])
    if not all(0 <= large - side < step for large, side, step in zip(whole, size, stride, strict=True)):
        raise ValueError(
            f"Maps of {maps.shape[1]} x {maps.shape[2]} patches of {stride[0]} x {stride[1]} pixels do not belong to "
            f"images of {size[0]} x {size[1]} pixels: expected the map of the image itself."
        )
    return F.interpolate(maps[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def overlay(picture: Picture, pixel_map: Tensor) -> Picture:
    """A map ``(H, W)`` in colours over a picture ``(H, W, 3)`` in grey, dark is its minimum and yellow its maximum.

    Each map has its own scale: colours compare places within one picture, not pictures.
    """
    values = pixel_map.detach().float().cpu().numpy()
    lowest, highest = values.min(), values.max()
    shares = (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)
    colours = matplotlib.colormaps[_COLOURS](shares)[..., :3]
    return (1 - _OPACITY) * picture.mean(axis=-1, keepdims=True) + _OPACITY * colours
