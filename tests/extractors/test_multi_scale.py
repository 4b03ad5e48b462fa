"""Descriptors over several scales, against the average by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from oml_vit_ext.extractors.multi_scale import check_scales, multi_scale, rescale


def test_the_average_by_hand():
    images = torch.rand(2, 3, 8, 12)
    describe = lambda x: torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3)), x[:, 0, -1, -1]], dim=1)  # noqa: E731
    half, larger = F.interpolate(images, (4, 6), mode="bilinear"), F.interpolate(images, (10, 15), mode="bilinear")
    expected = (describe(half) + describe(images) + describe(larger)) / 3
    torch.testing.assert_close(multi_scale(describe, images, (0.5, 1, 1.25)), expected)


def test_an_image_at_scale_1_is_left_alone():
    images = torch.rand(1, 3, 7, 5)
    assert rescale(images, 1.0) is images


def test_an_image_never_vanishes():
    assert rescale(torch.rand(1, 3, 2, 40), 0.1).shape == (1, 3, 1, 4)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("nan"),), (float("inf"),)])
def test_scales_that_make_no_image(scales: tuple[float, ...]):
    with pytest.raises(ValueError, match=r"scales is \[.*\], expected positive factors of the side"):
        check_scales(scales)
