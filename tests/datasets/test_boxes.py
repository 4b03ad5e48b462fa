"""Boxes on the images that are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from helpers import miniature
from oml_vit_ext.datasets import convert
from oml_vit_ext.datasets.boxes import out_of_square, with_whole_boxes

SIDES = ["x_1", "x_2", "y_1", "y_2"]


def _frame(box: tuple, width: int, height: int, turned: bool = False) -> pd.DataFrame:
    return pd.DataFrame([dict(zip([*SIDES, "width", "height", "turned"], [*box, width, height, turned], strict=True))])


@pytest.mark.parametrize(("width", "height"), [(750, 1101), (1101, 750), (600, 600), (256, 256), (90, 120)])
def test_a_square_is_undone(width: int, height: int):
    box = np.array([0.2 * width, 0.9 * width, 0.1 * height, 0.7 * height])
    scale = 256 / max(width, height)
    margin = np.repeat([(256 - width * scale) / 2, (256 - height * scale) / 2], 2)
    found = out_of_square(_frame(tuple(box * scale + margin), width, height), 256)[SIDES].to_numpy()[0]
    assert np.abs(found - box).max() <= 0.5


def test_boxes_end_where_the_upright_image_ends():
    assert with_whole_boxes(_frame((-3, 99, 1, 99), 30, 20, turned=True))[SIDES].to_numpy().tolist() == [[0, 20, 1, 30]]
    whole = with_whole_boxes(_frame((np.nan,) * 4, 30, 20, turned=True))[SIDES]
    assert whole.to_numpy().tolist() == [[0, 20, 0, 30]]


@pytest.mark.parametrize("folder", ["img", "img_highres", "large in img", "small in img_highres"])
def test_boxes_of_inshop_hold_the_garment_in_either_folder(tmp_path: Path, folder: str):
    """The list's boxes are of the small images: the large ones in the middle of a white square of 256 px."""
    miniature.inshop(tmp_path)
    large = Image.new("RGB", (600, 900), "grey")
    ImageDraw.Draw(large).rectangle((150, 300, 449, 749), fill="blue")
    small = Image.new("RGB", (256, 256), "white")
    small.paste(large.resize((171, 256)), (43, 0))
    for file in (tmp_path / "img_highres").rglob("*.jpg"):
        large.save(file)
        copy = tmp_path / "img" / file.relative_to(tmp_path / "img_highres")
        copy.parent.mkdir(parents=True, exist_ok=True)
        small.save(copy)
    if folder != "img_highres":
        (tmp_path / "img_highres").rename(tmp_path / "large")
    if " in " in folder:
        (tmp_path / "img").rename(tmp_path / "small")
        (tmp_path / folder.split(" in ")[0]).rename(tmp_path / folder.split(" in ")[1])
    lists = tmp_path / "list_bbox_inshop.txt"
    lists.write_text(lists.read_text().replace("021 085 235 192", "086 085 171 213"))
    df = convert("inshop", tmp_path, boxes=True, check=False, verbose=False)
    row = df.iloc[0]
    assert row.path.startswith(f"{folder.split()[-1]}/")
    cut = np.asarray(Image.open(tmp_path / row.path).crop((row.x_1, row.y_1, row.x_2, row.y_2))).astype(int)
    assert (cut[..., 2] > 150).mean() > 0.97 and (cut[..., 0] < 100).mean() > 0.97
    if folder in ("img_highres", "large in img"):
        expected = (150, 450, 300, 750)
        assert max(abs(row[side] - value) for side, value in zip(SIDES, expected, strict=True)) <= 4


def test_boxes_of_inshop_that_were_scaled_already_stay(tmp_path: Path):
    miniature.inshop(tmp_path)
    for file in (tmp_path / "img_highres").rglob("*.jpg"):
        Image.new("RGB", (600, 900)).save(file)
    lists = tmp_path / "list_bbox_inshop.txt"
    lists.write_text(lists.read_text().replace("021 085 235 192", "150 300 450 750"))
    df = convert("inshop", tmp_path, boxes=True, check=False, verbose=False)
    assert df[SIDES].iloc[0].tolist() == [150, 450, 300, 750]
