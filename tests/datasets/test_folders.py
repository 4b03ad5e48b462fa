"""Classes, splits and categories from the folders of a tree."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pandas as pd
import pytest

from helpers import miniature
from oml_vit_ext.datasets import convert
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


def test_folders_of_splits_may_lie_in_each_other(tmp_path: Path):
    """As archives of Kaggle unpack: a class is one label on both sides all the same."""
    _tree(tmp_path, "training_set/training_set/cat/1.jpg", "test_set/test_set/cat/2.jpg", "test_set/test_set/dog/1.jpg")
    assert [(label, split) for _, label, split in _rows(tmp_path)] == [
        (0, "validation"),
        (1, "validation"),
        (0, "train"),
    ]


def test_a_name_written_as_on_a_mac_is_the_same_name(tmp_path: Path):
    _tree(tmp_path, "train/caf\u00e9/1.jpg", "test/cafe\u0301/1.jpg")
    frame = folders(tmp_path).frame
    assert frame.label.tolist() == [0, 0] and set(frame.label_name) == {"caf\u00e9"}
    assert all((tmp_path / path).is_file() for path in frame.path), "the files keep their names"


def test_classes_that_differ_in_case_alone_are_named(tmp_path: Path):
    _tree(tmp_path, "Apple/1.jpg", "Apple/2.jpg", "apple/1.jpg", "apple/2.jpg", "pear/1.jpg", "pear/2.jpg")
    with pytest.warns(UserWarning, match=r"2 classes differ in upper and lower case alone.*: Apple; apple\."):
        assert folders(tmp_path).frame.label.nunique() == 3


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path):
    (tmp_path / "photos.zip").touch()
    with pytest.raises(ValueError, match=r"holds no images, but other files \(1\): photos\.zip: expected a folder"):
        folders(tmp_path)


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


def _converted(root: Path, *files: str, **options) -> tuple[pd.DataFrame, str]:
    """The frame as it is read back, and what was told."""
    for file in files:
        miniature.image(root / file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert("folders", root, verbose=False, **options)
    return pd.read_csv(root / "df.csv"), "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("train", "validation"), [("Training", "Test"), ("train", "val"), ("TRAIN", "Valid"), ("train_set", "dev")]
)
@pytest.mark.parametrize("above", ["", "fruits-360/"])
def test_a_class_in_both_splits_is_one_label(tmp_path: Path, train: str, validation: str, above: str):
    files = [f"{above}{split}/{c}/{i}.jpg" for split in (train, validation) for c in ("pear", "fig") for i in (1, 2)]
    df, told = _converted(tmp_path, *files)
    assert df.groupby("label").split.nunique().tolist() == [2, 2]
    assert (df.split == "train").tolist() == [f"{train}/" in path for path in df.path]
    assert {Path(path).parent.name for path in df[df.label == 0].path} == {"fig"}
    assert [Path(name).name for name in df.label_name] == [Path(path).parent.name for path in df.path]
    assert "2 labels are in the training and in the validation set" in told


def test_splits_may_lie_in_the_classes(tmp_path: Path):
    df, _ = _converted(tmp_path, *(f"{c}/{split}/{i}.jpg" for c in "ab" for split in ("train", "test") for i in "12"))
    assert df.label_name.tolist() == ["a"] * 4 + ["b"] * 4 and (df.split == "train").sum() == 4


def test_what_lies_beside_the_splits_is_left_out_and_named(tmp_path: Path):
    files = [f"{split}/{c}/{i}.jpg" for split in ("Training", "Test") for c in ("pear", "fig") for i in (1, 2)]
    df, told = _converted(tmp_path, *files, "test-multiple_fruits/1.jpg", "test-multiple_fruits/2.jpg", "cover.jpg")
    assert len(df) == 8 and df.label.nunique() == 2
    assert "beside the folders of the splits: cover.jpg (1 image); test-multiple_fruits (2 images)" in told


@pytest.mark.parametrize("name", ["train", "Test", "val_extra", "Query"])
def test_what_looks_like_a_split_but_is_none_is_named(tmp_path: Path, name: str):
    df, told = _converted(tmp_path, f"{name}/1.jpg", f"{name}/2.jpg", "bus/1.jpg", "bus/2.jpg")
    assert df.label.nunique() == 2 and f"{name} looks like a split, but is taken for a class" in told


def test_plain_classes_are_told_nothing(tmp_path: Path):
    assert _converted(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")[1] == ""


def test_the_only_image_of_a_class_is_no_query_and_stays_in_the_gallery(tmp_path: Path):
    df, told = _converted(tmp_path, "cat/1.jpg", "cat/2.jpg", "lion/1.jpg")
    assert df.is_query.tolist() == [True, True, False] and df.is_gallery.all()
    assert "1 class has one image: lion" in told and "1 validation image is the only one" in told


def test_without_any_query_it_is_said_that_nothing_can_be_measured(tmp_path: Path):
    df, told = _converted(tmp_path, "cat/1.jpg", "lion/1.jpg")
    assert not df.is_query.any() and "no metric can be computed" in told


def test_links_litter_and_unreadable_formats(tmp_path: Path):
    root, disk = tmp_path / "root", tmp_path / "disk"
    for file in (root / "cat/1.jpg", root / "cat/2.jpg", disk / "dog/1.jpg", disk / "dog/2.jpg"):
        miniature.image(file)
    miniature.image(root / "cat/.ipynb_checkpoints/1-checkpoint.jpg")
    (root / "cat/._1.jpg").write_bytes(b"\x00\x05\x16\x07")
    (root / "cat/raw.NEF").touch()
    (root / "dog").symlink_to(disk / "dog")
    (disk / "dog/up").symlink_to(root)
    df, told = _converted(root)
    assert df.path.tolist() == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"]
    assert "raw photos are not read: convert them to JPEG (1): cat/raw.NEF" in told
    assert "visited already (1): dog/up" in told


@pytest.mark.parametrize(
    "name",
    [
        "日本 фото/a b.jpg",
        "NA/1.jpg",
        "None/none.jpg",
        "007/1.jpg",
        'a,b"c/1.jpg',
        "x/line\nbreak.jpg",
        "x/back\\slash.jpg",
        "x/tab\t.jpg",
        "x/ .jpg",
        "x/dots..and...jpg",
        "é/e\u0301.jpg",
        "y" * 200 + "/" + "z" * 240 + ".jpg",
    ],
)
def test_names_survive_the_dataframe(tmp_path: Path, name: str):
    df, _ = _converted(tmp_path, name, "other/1.jpg", "other/2.jpg")
    assert name in df.path.tolist() and all((tmp_path / path).is_file() for path in df.path)
    assert df.label_name.notna().all() and len(df) == 3


@pytest.mark.parametrize("name", [b"caf\xe9/1.jpg", b"cat/\xff\xfe.jpg", b"cat/\r.jpg"])
def test_names_that_no_dataframe_holds_are_left_out_and_named(tmp_path: Path, name: bytes):
    file = os.path.join(os.fsencode(tmp_path), name)
    miniature.image(Path(os.fsdecode(file)))
    df, told = _converted(tmp_path, "cat/1.jpg", "cat/2.jpg")
    assert df.path.tolist() == ["cat/1.jpg", "cat/2.jpg"] and "a CSV file cannot hold the name" in told
