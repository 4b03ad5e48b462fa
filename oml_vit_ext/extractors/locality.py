"""The enhanced locality module (ELM) of DToP: a convolutional refinement of the map of patch tokens.

Source: Song et al., Boosting vision transformers for image retrieval, arXiv 2210.11909. The paper does not give
the layout: it is our guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation


class EnhancedLocality(nn.Sequential):
    """WaveBlock, inverted residual block, atrous spatial pyramid, WaveBlock: ``(B, C, h, w)`` -> ``(B, C, h, w)``.

    The caller adds the result to the input. † marks what the paper does not say: the default is our guess.

    Args:
        dim: C.
        expansion †: The inverted residual block is this many times as wide inside (Sandler et al., arXiv 1801.04381).
        dilations †: Of the 3 x 3 convolutions of the pyramid, in tokens. Where they reach beyond the map they see
            zeros: on a map of 6 x 6, a dilation of 6 or more leaves the centre only.
        wave_height, wave_scale †: See :class:`WaveBlock`.

    Raises:
        ValueError: ``wave_height`` is not from 0 to 1.

    >>> EnhancedLocality(dim=4, dilations=(1, 2)).eval()(torch.rand(2, 4, 6, 5)).shape
    torch.Size([2, 4, 6, 5])
    """

    def __init__(
        self,
        dim: int,
        expansion: float = 2.0,
        dilations: Sequence[int] = (6, 12, 18),
        wave_height: float = 0.3,
        wave_scale: float = 1.5,
    ) -> None:
        super().__init__(
            WaveBlock(wave_height, wave_scale),
            InvertedResidual(dim, dim, stride=1, expand_ratio=expansion),  # type: ignore[arg-type]
            AtrousSpatialPyramid(dim, dilations),
            WaveBlock(wave_height, wave_scale),
        )


class AtrousSpatialPyramid(nn.Module):
    """A 1 x 1 convolution, dilated 3 x 3 ones and the mean of the map, side by side, then joined by a 1 x 1 one.

    ``(B, C, h, w)`` -> ``(B, C, h, w)``. Every part but the last has batch norm and ReLU.
    Source: Chen et al., Rethinking atrous convolution for semantic image segmentation, arXiv 1706.05587, section 3.3.
    """

    def __init__(self, dim: int, dilations: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(
            [Conv2dNormActivation(dim, dim, 1), *(Conv2dNormActivation(dim, dim, 3, dilation=d) for d in dilations)]
        )
        self.image = Conv2dNormActivation(dim, dim, 1)
        self.join = nn.Conv2d(dim * (len(self.pyramid) + 1), dim, 1)

    def forward(self, maps: Tensor) -> Tensor:
        levels = [level(maps) for level in self.pyramid]
        image = self.image(maps.mean(dim=(2, 3), keepdim=True)).expand_as(levels[0])
        return self.join(torch.cat([*levels, image], dim=1))


class WaveBlock(nn.Module):
    """In training, one horizontal band of each map keeps its values and the rest is scaled; otherwise the identity.

    Source: Wang et al., Attentive WaveBlock, arXiv 2006.06525, section III-A. There one band serves the whole batch;
    here every image draws its own.

    Args:
        height: Height of the band, as a share of the map's.
        scale: Of all values outside the band.

    Raises:
        ValueError: ``height`` is not from 0 to 1.
    """

    def __init__(self, height: float = 0.3, scale: float = 1.5) -> None:
        super().__init__()
        if not 0 <= height <= 1:
            raise ValueError(f"wave_height is {height!r}, expected a share of the map's height, from 0 to 1.")
        self.height = height
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return maps
        band = round(self.height * maps.shape[2])
        first = torch.randint(maps.shape[2] - band + 1, (maps.shape[0], 1, 1, 1), device=maps.device)
        return wave(maps, first, band, self.scale)

    def extra_repr(self) -> str:
        return f"height={self.height:g}, scale={self.scale:g}"


def wave(maps: Tensor, first: Tensor, band: int, scale: float) -> Tensor:
    """All rows times ``scale`` but ``band`` rows from ``first`` on.

    Args:
        maps: ``(B, C, h, w)``.
        first: ``(B, 1, 1, 1)``, per image the first row that keeps its values.
        band: How many rows keep them.
        scale: Of all others.
    """
    row = torch.arange(maps.shape[2], device=maps.device).view(1, 1, -1, 1)
    inside = (row >= first) & (row < first + band)
    return torch.where(inside, maps, maps * scale)
