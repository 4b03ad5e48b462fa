"""Classes, splits and categories from the folders of a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import miniature
from oml_vit_ext.datasets.folders import folders


def _tree(root: Path, *names: str) -> Path:
    for name in names:
        miniature.image(root / name)
    return root


def _rows(root: Path, **options) -> list[tuple]:
    frame = folders(root, **options).frame
    return sorted(zip(frame.path, frame.label, frame.split, strict=True))


def test_a_class_is_its_whole_path_in_the_order_of_the_names(tmp_path: Path):
    _tree(tmp_path, "fruit/apple/1.jpg", "drink/apple/1.jpg", "drink/apple/2.jpg", "drink/tea/1.jpg")
    assert _rows(tmp_path) == [
        ("drink/apple/1.jpg", 0, "validation"),
        ("drink/apple/2.jpg", 0, "validation"),
        ("drink/tea/1.jpg", 1, "validation"),
        ("fruit/apple/1.jpg", 2, "validation"),
    ]
    frame = folders(tmp_path).frame
    assert [path.split("/")[0] for path in frame.path] == frame.category.tolist()


def test_there_are_categories_only_where_every_class_has_one(tmp_path: Path):
    _tree(tmp_path, "fruit/apple/1.jpg", "tea/1.jpg")
    assert "category" not in folders(tmp_path).frame


@pytest.mark.parametrize("name", ["validation", "val", "valid", "test"])
def test_splits_are_seen_at_the_top_and_share_their_classes(tmp_path: Path, name: str):
    _tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{name}/b/2.jpg", f"{name}/c/1.jpg")
    assert _rows(tmp_path) == sorted(
        [
            ("train/a/1.jpg", 0, "train"),
            ("train/b/1.jpg", 1, "train"),
            (f"{name}/b/2.jpg", 1, "validation"),
            (f"{name}/c/1.jpg", 2, "validation"),
        ]
    )
    with pytest.raises(ValueError, match=r"train_labels is 1, but the folders of .* are splits already"):
        folders(tmp_path, train_labels=1)


@pytest.mark.parametrize("others", [["more/a/1.jpg", "test/a/1.jpg"], []], ids=["another folder", "train alone"])
def test_a_class_may_be_called_train(tmp_path: Path, others: list[str]):
    _tree(tmp_path, "train/1.jpg", *others)
    assert {split for *_, split in _rows(tmp_path)} == {"validation"}


def test_the_first_classes_are_for_training_if_asked(tmp_path: Path):
    _tree(tmp_path, "c/1.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg")
    assert [split for *_, split in _rows(tmp_path, train_labels=2)] == ["train"] * 3 + ["validation"]
    assert {split for *_, split in _rows(tmp_path, train_labels=-1)} == {"train"}
    for wrong in (4, -2):
        with pytest.raises(ValueError, match=f"train_labels is {wrong}, but .* has 3 classes"):
            folders(tmp_path, train_labels=wrong)


def test_images_outside_of_a_class_are_named_and_other_files_are_none(tmp_path: Path):
    _tree(tmp_path, "a/1.jpg", ".hidden/2.jpg")
    (tmp_path / "notes.txt").write_text("")
    assert [path for path, *_ in _rows(tmp_path)] == ["a/1.jpg"]
    miniature.image(tmp_path / "loose.jpg")
    with pytest.raises(ValueError, match=r"loose\.jpg lies in no class"):
        folders(tmp_path)
