"""Which group an image belongs to: against the plain definition, the smallest factor between aspect ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oml_vit_ext.transforms.size_groups import GROUP_SIZES, checked_sizes, group_of


def test_the_nearest_shape_is_the_one_with_the_smallest_factor():
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 3000, 500), rng.integers(1, 3000, 500)
    found = group_of(widths, heights, GROUP_SIZES)
    for width, height, group in zip(widths.tolist(), heights.tolist(), found.tolist(), strict=True):
        factors = [abs(math.log(width / height) - math.log(w / h)) for w, h in GROUP_SIZES]
        assert factors[group] == pytest.approx(min(factors), abs=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1)])
def test_each_size_is_its_own_group(order: tuple[int, ...]):
    sizes = [GROUP_SIZES[i] for i in order]
    for group, (width, height) in enumerate(sizes):
        assert group_of(width, height, sizes) == group
        assert group_of(7 * width, 7 * height, sizes) == group


def test_an_image_on_the_border_has_the_same_group_alone_and_among_others():
    sizes = checked_sizes([(400, 100), (100, 100)])  # the border is 2 : 1
    widths = np.arange(1, 4000)
    among_others = group_of(2 * widths, widths, sizes)
    assert set(among_others.tolist()) == {1}
    assert all(group_of(2 * int(width), int(width), sizes) == 1 for width in widths)
    assert group_of(2001, 1000, sizes) == 0


def test_extreme_shapes_go_to_the_outermost_groups():
    assert GROUP_SIZES[int(group_of(60_000, 1, GROUP_SIZES))] == (512, 352)
    assert GROUP_SIZES[int(group_of(1, 60_000, GROUP_SIZES))] == (352, 512)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "sizes is empty"),
        (512, r"sizes is 512, expected a list of \[width, height\]"),
        ([512, 352], r"sizes is \[512, 352\], expected a list of"),
        ([[True, True]], r"sizes holds \[True, True\]"),
        ([[512]], r"sizes holds \[512\], expected \[width, height\]"),
        ([[512, 0]], r"sizes holds \[512, 0\]"),
        ([[512.0, 352]], r"sizes holds \[512.0, 352\]"),
        ([[448, 448], [224, 224]], r"\[448, 448\] and \[224, 224\], which have the same shape"),
    ],
)
def test_wrong_sizes_are_named(sizes: list[list[int]], message: str):
    with pytest.raises(ValueError, match=message):
        checked_sizes(sizes)
