"""The locality module of DToP, against loops over the map and torch's own functions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oml_vit_ext.extractors.locality import AtrousSpatialPyramid, EnhancedLocality, WaveBlock

DIM = 3


@pytest.fixture()
def elm() -> EnhancedLocality:
    """In evaluation mode, with batch norms that are not the identity."""
    module = EnhancedLocality(DIM, expansion=2, dilations=(1, 2, 3)).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        scale = norm.weight[c] / math.sqrt(norm.running_var[c] + norm.eps)
        out[:, c] = (x[:, c] - norm.running_mean[c]) * scale + norm.bias[c]
    return out


def conv(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Zeros outside of the map; tap by tap."""
    b, _, h, w = x.shape
    half = weight.shape[-1] // 2
    out = torch.zeros(b, weight.shape[0], h, w)
    for row in range(h):
        for column in range(w):
            for i in range(-half, half + 1):
                for j in range(-half, half + 1):
                    r, c = row + i * dilation, column + j * dilation
                    if 0 <= r < h and 0 <= c < w:
                        out[:, :, row, column] += x[:, :, r, c] @ weight[:, :, i + half, j + half].T
    return out


def test_the_whole_module_by_hand(elm: EnhancedLocality):
    x = torch.randn(2, DIM, 5, 4)
    expand, depthwise, project, norm = elm[1].conv
    y = batch_norm(conv(x, expand[0].weight), expand[1]).clamp(0, 6)
    y = torch.stack([conv(y[:, c : c + 1], depthwise[0].weight[c : c + 1])[:, 0] for c in range(2 * DIM)], dim=1)
    y = batch_norm(y, depthwise[1]).clamp(0, 6)
    y = x + batch_norm(conv(y, project.weight), norm)

    pyramid = elm[2]
    levels = [
        F.relu(batch_norm(conv(y, level[0].weight, dilation), level[1]))
        for level, dilation in zip(pyramid.pyramid, (1, 1, 2, 3), strict=True)
    ]
    mean = y.flatten(2).mean(2)[:, :, None, None]
    image = F.relu(batch_norm(conv(mean, pyramid.image[0].weight), pyramid.image[1])).expand_as(y)
    expected = conv(torch.cat([*levels, image], 1), pyramid.join.weight) + pyramid.join.bias[:, None, None]
    torch.testing.assert_close(elm(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(6, 6), (1, 1), (2, 40)])
def test_the_papers_dilations_on_small_maps(size: tuple[int, int]):
    """A tap beyond the map sees zeros: on such a map, a dilated convolution is one of 1 x 1."""
    pyramid = AtrousSpatialPyramid(DIM).eval()
    x = torch.randn(2, DIM, *size)
    assert pyramid(x).shape == x.shape
    if size == (6, 6):
        centre = conv(x, pyramid.pyramid[3][0].weight[:, :, 1:2, 1:2])
        torch.testing.assert_close(pyramid.pyramid[3][0](x), centre, atol=1e-5, rtol=1e-4)


def test_waveblock_keeps_one_band_of_every_image():
    maps = torch.rand(200, 2, 10, 3) + 1
    factor = WaveBlock(0.3, 1.5)(maps) / maps
    kept = (factor[:, 0, :, 0] - 1).abs() < 1e-5
    assert torch.allclose(factor, torch.where(kept, 1.0, 1.5)[:, None, :, None].expand_as(factor))
    assert (kept.sum(1) == 3).all()  # 0.3 of ten rows
    first = kept.float().argmax(1)
    assert all(kept[i, first[i] : first[i] + 3].all() for i in range(200))  # side by side
    assert sorted(set(first.tolist())) == list(range(8))  # anywhere, and not all at the same place


def test_waveblock_is_for_training_only():
    maps = torch.rand(2, 2, 10, 3)
    assert WaveBlock().eval()(maps) is maps


@pytest.mark.parametrize(("height", "kept"), [(0.0, 0), (1.0, 4), (0.3, 1)])
def test_waveblock_bands_from_nothing_to_the_whole_map(height: float, kept: int):
    maps = torch.ones(1, 1, 4, 1)
    assert (WaveBlock(height, 2.0)(maps) == 1).sum() == kept


def test_a_band_higher_than_the_map_is_refused():
    with pytest.raises(ValueError, match=r"wave_height is 3, expected a share of the map's height, from 0 to 1"):
        EnhancedLocality(DIM, wave_height=3)
