"""Figures as files: whole, of a sensible size, with the frames and colours that were asked for."""

from __future__ import annotations

from pathlib import Path

import albumentations as albu
import numpy as np
import pytest
import torch
import torchvision.transforms as t
from PIL import Image

from oml_vit_ext.pictures import (
    RIGHT,
    WRONG,
    CrossAttention,
    Strip,
    Tile,
    draw_attention,
    draw_budget_curve,
    draw_cross_attention,
    draw_grid,
    draw_strips,
    enlarge_maps,
    mean_and_std,
    overlay,
    to_picture,
)
from oml_vit_ext.reranking import BudgetCurve

GREY = np.full((16, 24, 3), 0.5)


def pixels_of(path: Path, colour: str) -> np.ndarray:
    """Where a drawn picture has exactly this colour, as a boolean array."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.asarray(Image.open(path).convert("RGB")) == wanted).all(axis=-1)


def columns_with(path: Path, colour: str) -> list[float]:
    """The left edges of separate areas of a colour, as shares of the width."""
    there = pixels_of(path, colour).sum(axis=0) > 20  # vertical sides of frames
    starts = np.flatnonzero(there & ~np.roll(there, 1))
    return (starts / len(there)).tolist()


def test_strips_frame_ground_truth_in_green_and_the_rest_in_red(tmp_path: Path):
    before = Strip(GREY, [GREY, GREY], [False, True], [0.1, 0.25])
    after = Strip(GREY, [GREY, GREY], [True, False])
    draw_strips([before], [after], tmp_path / "strips.png")
    green, red = (columns_with(tmp_path / "strips.png", colour) for colour in (RIGHT, WRONG))
    assert len(green) == len(red) == 4, "two frames with two vertical sides each"
    assert red[0] < green[0] < green[2] < red[2], "wrong, right before; right, wrong after"
    width, height = Image.open(tmp_path / "strips.png").size
    assert width > 2 * height > 200
    assert [file.name for file in tmp_path.iterdir()] == ["strips.png"]


def test_rows_of_different_lengths_keep_their_columns(tmp_path: Path):
    long, short = Strip(GREY, [GREY] * 3, [True] * 3), Strip(GREY, [GREY], [True])
    draw_strips([long, short], [long, short], tmp_path / "strips.png")
    draw_strips([long, long], [long, long], tmp_path / "full.png")
    starts = [columns_with(tmp_path / name, RIGHT) for name in ("strips.png", "full.png")]
    assert starts[0] == starts[1] and len(starts[0]) == 12


def test_attention_has_a_row_of_pictures_and_one_per_kind(tmp_path: Path):
    strip = Strip(GREY, [GREY, GREY], [True, False], [0.1, 0.2])
    maps = {kind: [[torch.rand(16, 24)] * 3] for kind in ("last_block", "rollout")}
    draw_attention([strip], {}, tmp_path / "none.png")
    draw_attention([strip], maps, tmp_path / "maps.png")
    heights = [Image.open(tmp_path / name).size[1] for name in ("none.png", "maps.png")]
    assert heights[1] > 2 * heights[0]
    with pytest.raises(ValueError, match="zip"):
        draw_attention([strip], {"last_block": [[torch.rand(16, 24)]]}, tmp_path / "missing.png")
    assert not (tmp_path / "missing.png").exists()


def test_across_a_pair_the_patch_looked_at_most_is_marked(tmp_path: Path):
    from_2 = torch.zeros(2, 3, 2, 3)
    from_2[:, :, 1, 2] = 1  # the lower right patch of image 1
    attention = CrossAttention(torch.rand(2, 3, 2, 3), from_2, (8, 8))
    draw_cross_attention([(GREY, GREY, attention, True)], tmp_path / "pair.png")
    marked = pixels_of(tmp_path / "pair.png", "#00e5ff")
    rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    assert 0.3 < columns.mean() / marked.shape[1] < 0.5, "in the third picture of seven columns"
    assert rows.mean() > 0.5 * marked.shape[0] and len(rows) < 0.5 * marked.shape[0]


def test_an_empty_figure_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no pictures to draw for .*empty\.png"):
        draw_grid([], tmp_path / "empty.png")
    with pytest.raises(ValueError, match="no pictures"):
        draw_strips([], [], tmp_path / "empty.png")


def test_a_failed_figure_leaves_the_old_one(tmp_path: Path):
    draw_grid([[Tile(GREY)]], tmp_path / "figure.png")
    old = (tmp_path / "figure.png").read_bytes()
    with pytest.raises(TypeError):
        draw_grid([[Tile(np.zeros((2, 2, 7)))]], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == old


@pytest.mark.parametrize("library", [t, albu])
def test_normalisation_is_found_and_undone(library):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    transform = library.Compose([library.Normalize(mean=mean, std=std)])
    assert mean_and_std(transform) == (mean, std)
    assert mean_and_std(t.ToTensor()) == ((0, 0, 0), (1, 1, 1))
    image = torch.rand(3, 5, 4)
    normalised = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    np.testing.assert_allclose(to_picture(normalised, mean, std), image.permute(1, 2, 0), atol=1e-6)


def test_maps_grow_to_the_image():
    maps = torch.tensor([[[0.0, 1.0, 9.0]]])
    enlarged = enlarge_maps(maps, (8, 21), (8, 8))  # an image of 21 pixels was enlarged to three patches of 8
    assert enlarged.shape == (1, 8, 21)
    torch.testing.assert_close(enlarged[0, 0, [3, 10, 17]], torch.tensor([0.0, 1.0, 9.0]))  # the middles of the patches
    with pytest.raises(ValueError, match="1 x 3 patches of 8 x 8 pixels do not belong to images of 8 x 30 pixels"):
        enlarge_maps(maps, (8, 30), (8, 8))


def test_an_overlay_is_darkest_where_the_map_is_lowest():
    values = torch.zeros(16, 24)
    values[4, 5], values[8, 9] = 1, -1
    shown = overlay(GREY, values).sum(axis=-1)
    assert shown.shape == (16, 24)
    assert np.unravel_index(shown.argmax(), shown.shape) == (4, 5)
    assert np.unravel_index(shown.argmin(), shown.shape) == (8, 9)
    assert np.isfinite(overlay(GREY, torch.ones(16, 24))).all()


def test_the_budget_curve_goes_from_the_first_stage_to_all_queries(tmp_path: Path):
    curve = BudgetCurve(
        share_of_pairs=np.array([0, 0.5, 1]), cmc1=np.array([0.5, 0.7, 0.6]), margin=np.array([0.1, 0.2, np.inf])
    )
    draw_budget_curve(curve, tmp_path / "budget.png")
    line = pixels_of(tmp_path / "budget.png", RIGHT)
    rows, columns = np.nonzero(line)
    share = columns / line.shape[1]
    at = {end: rows[(abs(share - end) < 0.02)].mean() for end in (share.min() + 0.02, 0.55, share.max() - 0.02)}
    left, middle, right = at.values()
    assert middle < right < left, "rows count from the top: highest in the middle, lowest on the left"
    assert [file.name for file in tmp_path.iterdir()] == ["budget.png"]
