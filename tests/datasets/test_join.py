"""Training rows of one frame and validation rows of another, row by row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import ExifTags, Image

from oml_vit_ext.datasets.join import join
from oml_vit_ext.datasets.listing import make_frame

BOX = ["x_1", "x_2", "y_1", "y_2"]


def _csv(file: Path, labels: list[int], is_train: list[bool], **columns) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    make_frame(labels, [f"ims/{i}.jpg" for i in range(len(labels))], is_train, **columns).to_csv(file, index=False)
    return file


def test_rows_labels_and_paths(tmp_path: Path):
    train = _csv(tmp_path / "deep/er/a.csv", [4, 9, 5], [True, True, False])
    validation = _csv(tmp_path / "b.csv", [3, 6, 5, 3], [False, False, True, False], is_query=[True, False, True, True])
    returned = join(train, validation, tmp_path / "both.csv")
    found = pd.read_csv(tmp_path / "both.csv")
    assert found.path.tolist() == ["deep/er/ims/0.jpg", "deep/er/ims/1.jpg", "ims/0.jpg", "ims/1.jpg", "ims/3.jpg"]
    assert found.split.tolist() == ["train"] * 2 + ["validation"] * 3
    assert found.label.tolist() == [4, 9, 10, 13, 10], "3 and 6 moved above 9, their distance kept"
    assert found.is_query[2:].tolist() == [True, False, True] and found.is_gallery[2:].tolist() == [True] * 3
    assert found[["is_query", "is_gallery"]][:2].isna().all(axis=None), "OML wants no flags in training rows"
    assert returned.path.tolist() == found.path.tolist() and returned.label.tolist() == found.label.tolist()


def test_labels_that_are_names_are_told(tmp_path: Path):
    for name in ("a.csv", "b.csv"):
        frame = pd.read_csv(_csv(tmp_path / name, [0, 1], [name == "a.csv"] * 2))
        frame.assign(label=["cat", "dog"]).to_csv(tmp_path / name, index=False)
    with pytest.raises(ValueError, match=r"^The labels of .*a\.csv"):
        join(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "both.csv")


def test_only_columns_of_both_are_kept(tmp_path: Path):
    train = _csv(tmp_path / "a.csv", [0, 0], [True, True], category=["x", "y"], colour=["red", "blue"])
    validation = _csv(tmp_path / "b.csv", [0, 1], [False, False], category=["z", "z"], sequence=[1, 2])
    found = join(train, validation, tmp_path / "both.csv")
    assert found.category.tolist() == ["x", "y", "z", "z"] and not {"colour", "sequence"} & set(found)


@pytest.mark.parametrize("boxed_is_train", [True, False])
def test_images_beside_boxed_ones_get_a_box_around_all(tmp_path: Path, boxed_is_train: bool):
    sizes = {"width": [30, 40], "height": [20, 10]}
    boxes = {"x_1": [1, 2], "x_2": [9, 8], "y_1": [3, 4], "y_2": [6, 7]}
    boxed = _csv(tmp_path / "a.csv", [0, 0], [boxed_is_train] * 2, **sizes, **boxes)
    whole = _csv(tmp_path / "b.csv", [0, 0], [not boxed_is_train] * 2, **sizes)
    files = (boxed, whole) if boxed_is_train else (whole, boxed)
    found = join(*files, tmp_path / "both.csv")[BOX].to_numpy().tolist()
    parts = [[1, 9, 3, 6], [2, 8, 4, 7]], [[0, 30, 0, 20], [0, 40, 0, 10]]
    assert found == [*parts[not boxed_is_train], *parts[boxed_is_train]]


@pytest.mark.parametrize("boxed_is_train", [True, False])
def test_sizes_are_read_where_a_dataframe_does_not_hold_them(tmp_path: Path, boxed_is_train: bool):
    """OML's own converters write boxes without sizes, and other data sets without either."""
    boxes = {"x_1": [1, 2], "x_2": [9, 8], "y_1": [3, 4], "y_2": [6, 7]}
    boxed = _csv(tmp_path / "boxed/df.csv", [0, 0], [boxed_is_train] * 2, **boxes)
    whole = _csv(tmp_path / "whole/df.csv", [0, 0], [not boxed_is_train] * 2)
    (tmp_path / "whole/ims").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "whole/ims/0.jpg")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 10)).save(tmp_path / "whole/ims/1.jpg", exif=turned)
    files = (boxed, whole) if boxed_is_train else (whole, boxed)
    found = join(*files, tmp_path / "both.csv")[BOX].to_numpy().tolist()
    parts = [[1, 9, 3, 6], [2, 8, 4, 7]], [[0, 30, 0, 20], [0, 10, 0, 40]]
    assert found == [*parts[not boxed_is_train], *parts[boxed_is_train]]


def test_a_part_without_rows_of_its_split_or_outside_of_the_folder_is_an_error(tmp_path: Path):
    train, validation = _csv(tmp_path / "a/a.csv", [0], [True]), _csv(tmp_path / "b/b.csv", [0], [False])
    with pytest.raises(ValueError, match=r"b\.csv has no rows of the split 'train'"):
        join(validation, validation, tmp_path / "both.csv")
    with pytest.raises(ValueError, match=r"data set in .*/a does not lie below .*/b, the folder of the joined"):
        join(train, validation, tmp_path / "b/both.csv")
    assert not list(tmp_path.rglob("both.csv"))


def test_what_is_read_stays(tmp_path: Path):
    train = _csv(tmp_path / "a.csv", [0, 0], [True, True])
    validation = _csv(tmp_path / "b.csv", [0, 1], [False, False])
    before = train.read_bytes(), validation.read_bytes()
    for output in (train, tmp_path / ".." / tmp_path.name / "b.csv"):
        with pytest.raises(ValueError, match="expected another file than the one that is read"):
            join(train, validation, output)
    assert (train.read_bytes(), validation.read_bytes()) == before
