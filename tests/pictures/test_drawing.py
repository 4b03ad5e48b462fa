"""Framed pictures in a grid, files that are whole or not there, pictures and maps as a viewer sees them."""

from __future__ import annotations

from pathlib import Path

import albumentations as albu
import numpy as np
import pytest
import torch
import torchvision.transforms as t
from PIL import Image

from helpers.drawn import GREY, columns_with, pixels_of
from oml_vit_ext.pictures.drawing import (
    RIGHT,
    WRONG,
    Tile,
    draw_grid,
    enlarge_maps,
    mean_and_std,
    overlay,
    to_picture,
)


def test_pictures_stand_in_their_rows_and_columns(tmp_path: Path):
    draw_grid([[Tile(GREY, RIGHT), Tile(GREY, WRONG)], [None, Tile(GREY, RIGHT)]], tmp_path / "grid.png")
    right, wrong = (pixels_of(tmp_path / "grid.png", colour) for colour in (RIGHT, WRONG))
    height, width = right.shape
    upper, lower = right[: height // 2], right[height // 2 :]
    assert upper[:, : width // 2].any() and not upper[:, width // 2 :].any()
    assert lower[:, width // 2 :].any() and not lower[:, : width // 2].any()
    assert wrong[: height // 2, width // 2 :].any() and not wrong[height // 2 :].any()


def test_a_column_of_gaps_is_narrow(tmp_path: Path):
    draw_grid([[Tile(GREY, RIGHT), None, Tile(GREY, RIGHT)]], tmp_path / "gap.png")
    draw_grid([[Tile(GREY, RIGHT), Tile(GREY), Tile(GREY, RIGHT)]], tmp_path / "full.png")
    widths = [Image.open(tmp_path / name).size[0] for name in ("gap.png", "full.png")]
    assert 0.6 < widths[0] / widths[1] < 0.85
    assert all(len(columns_with(tmp_path / name, RIGHT)) == 4 for name in ("gap.png", "full.png"))


def test_a_box_is_drawn_where_it_is(tmp_path: Path):
    draw_grid([[Tile(GREY, RIGHT, box=(12, 8, 12, 8))]], tmp_path / "box.png")
    frame, box = (np.argwhere(pixels_of(tmp_path / "box.png", colour)) for colour in (RIGHT, "#00e5ff"))
    size = frame.max(axis=0) - frame.min(axis=0)
    middle = frame.min(axis=0) + size / 2
    assert (abs(box.min(axis=0) - middle) < 0.06 * size).all(), "its upper left corner is the middle of the picture"


def test_a_grid_without_pictures_is_an_error(tmp_path: Path):
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match=r"no pictures to draw for .*empty\.png"):
            draw_grid(rows, tmp_path / "empty.png")
    assert not list(tmp_path.iterdir())


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
