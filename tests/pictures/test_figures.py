"""Figures as files: whole, of a sensible size, with the frames and colours that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.drawn import GREY, columns_with, pixels_of
from oml_vit_ext.pictures import (
    RIGHT,
    WRONG,
    CrossAttention,
    Strip,
    draw_attention,
    draw_budget_curve,
    draw_cross_attention,
    draw_strips,
)
from oml_vit_ext.reranking import BudgetCurve


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
    with pytest.raises(ValueError, match="no pictures"):
        draw_strips([], [], tmp_path / "empty.png")


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
