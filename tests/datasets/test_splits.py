"""Names of splits as people write them."""

from __future__ import annotations

import pytest

from oml_vit_ext.datasets.splits import looks_like_split, side_of, split_level


@pytest.mark.parametrize(
    "name",
    ["train", "TRAIN", "Training", "train_set", "trainset", "trainImages", "images-train", "train2017", "Train "],
)
def test_names_for_training(name: str):
    assert side_of(name) == "train"


@pytest.mark.parametrize(
    "name", ["val", "Valid", "VALIDATION", "dev", "Test", "tests", "testing", "test_images", "testset", "val_2", "Eval"]
)
def test_names_for_validation(name: str):
    assert side_of(name) == "validation"


@pytest.mark.parametrize(
    "name", ["cat", "trainers", "valley", "testarossa", "contest", "devon rex", "train_station", ""]
)
def test_other_names(name: str):
    assert side_of(name) is None


@pytest.mark.parametrize("name", ["test-multiple_fruits", "query", "fold_3", "train_extra", "Gallery"])
def test_names_that_remind_of_splits(name: str):
    assert side_of(name) is None and looks_like_split(name)


@pytest.mark.parametrize(
    ("folders", "level"),
    [
        ([("train", "a"), ("val", "a")], 0),
        ([("a", "train"), ("a", "test"), ("b", "train")], 1),  # splits inside of the classes
        ([("fruits", "Training", "a"), ("fruits", "Test", "a")], 1),  # one folder more
        ([("Training", "a"), ("Test", "a"), ("papers",)], 0),
        ([("train", "a"), ("b",)], None),  # a class of locomotives
        ([("train",), ("test",), ("bus",)], None),  # all of them are classes
        ([("train", "a"), ("train", "b")], None),
        ([("vehicles", "train"), ("school", "test"), ("school", "book")], None),
        ([()], None),
    ],
)
def test_the_level_of_the_splits(folders: list, level: int | None):
    assert split_level(folders) == level
