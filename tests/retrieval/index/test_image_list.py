"""Images of a folder or a dataframe as rows of an index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.mean_colour import paint
from oml_vit_ext.retrieval.index.content import stamp
from oml_vit_ext.retrieval.index.image_list import COLUMNS, list_images, parse_box, relative_to_root


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    for name in ("b/2.png", "a/1.jpg", "a/deep/3.webp"):
        paint(tmp_path / name, (1, 2, 3))
    (tmp_path / "a/notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_listed_with_its_subfolders_below_the_root(root: Path):
    images = list_images(root / "a", root)
    assert list(images.columns) == COLUMNS and images.path.tolist() == ["a/1.jpg", "a/deep/3.webp"]
    assert images.key.tolist() == images.path.tolist() and set(images.box) == set(images.label) == {""}
    for path, size, time in zip(images.path, images["size"], images.mtime_ns, strict=True):
        assert (size, time) == stamp(root / path)


def test_labels_beside_empty_cells_stay_whole_numbers(root: Path):
    df = pd.DataFrame({"path": ["b.png", "a.png"], "label": [7, np.nan]})
    assert list_images(df, root).label.tolist() == ["7", ""]


def test_a_row_without_a_path_is_named(root: Path):
    with pytest.raises(ValueError, match=r"Row 1 of the dataframe has no path"):
        list_images(pd.DataFrame({"path": ["a.png", None]}), root)


def test_rows_of_a_dataframe_keep_their_order_labels_and_boxes(root: Path):
    df = pd.DataFrame({"path": ["b/2.png", str(root / "a/1.jpg"), "./b/2.png", "gone.png"]})
    boxes = {"x_1": [1.0, np.nan, 0, 2], "y_1": [2, 0, 0, 2], "x_2": [5, 9, 8, 4], "y_2": [6, 9, 8, 4]}
    df = df.assign(label=[3, np.nan, "x", 1], **boxes)
    images = list_images(df, root)
    assert images.path.tolist() == ["b/2.png", "a/1.jpg", "b/2.png", "gone.png"]
    assert images.box.tolist() == ["1,2,5,6", "", "0,0,8,8", "2,2,4,4"], "x_1, y_1, x_2, y_2; whole without one"
    assert images.label.tolist() == ["3", "", "x", "1"]
    assert images.key.tolist() == ["b/2.png#1,2,5,6", "a/1.jpg", "b/2.png#0,0,8,8", "gone.png#2,2,4,4"]
    assert (images["size"][3], images.mtime_ns[3]) == (-1, -1), "a file that is not there"
    assert [parse_box(box) for box in images.box] == [(1, 2, 5, 6), None, (0, 0, 8, 8), (2, 2, 4, 4)]


def test_a_part_of_a_list_is_a_list(root: Path):
    images = list_images(root, root)
    part = list_images(images[1:], root)
    assert part.equals(images[1:].reset_index(drop=True)) and part.index.tolist() == [0, 1]


def test_paths_are_below_the_root_or_refused(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root / "b")
    assert relative_to_root("a/../b/2.png", root) == "b/2.png"
    assert relative_to_root(root / "a/1.jpg", "..") == "a/1.jpg"
    (root / "link").symlink_to(root / "b")
    assert relative_to_root("link/2.png", root) == "link/2.png", "links are not followed"
    for outside in ("../x.png", os.sep + "x.png", str(root) + "-more/x.png", "."):
        with pytest.raises(ValueError, match=r"lies outside the root '.*' of the index, expected it below"):
            relative_to_root(outside, root)


@pytest.mark.skipif(os.name == "nt", reason="there, both are between folders")
def test_tables_of_windows(root: Path):
    (root / "odd\\name.png").touch()
    names = ["a\\1.jpg", "a\\deep\\3.webp", "odd\\name.png", "no\\where.png", "..\\..\\x.png"]
    listed = list_images(pd.DataFrame({"path": names}), root).path.tolist()
    assert listed == ["a/1.jpg", "a/deep/3.webp", *names[2:]]


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {"path": ["a.png"]}])
def test_what_is_neither_folder_nor_dataframe(root: Path, source: Any):
    with pytest.raises(TypeError, match=r"The images are .*, expected a folder or a dataframe with the column 'path'"):
        list_images(source, root)


def test_one_file_is_listed_once(root: Path):
    with pytest.raises(ValueError, match=r"1 image is listed more than once, the first: 'b/2\.png'"):
        list_images(pd.DataFrame({"path": ["b/2.png", "a/1.jpg", "./b/2.png"]}), root)
    with pytest.raises(FileNotFoundError, match=r"image folder '.*' is a file, expected a folder of images"):
        list_images(root / "b/2.png", root)
