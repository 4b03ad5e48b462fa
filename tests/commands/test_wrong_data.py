"""The data of a config: the dataframe, its photos, and batches that do not go with them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.configs import composed
from oml_vit_ext.commands.wrong_data import wrong_data


def _found(tiny: list[str], *overrides: str) -> dict[str, tuple[str, bool]]:
    fitting = ["sampler.args.n_labels=4", "memory_size=30", "metric_args.cmc_top_k=[1]"]
    cfg = composed("irt/train_photos", *tiny, *fitting, *overrides)
    return {mistake.key: (mistake.sentence, mistake.is_error) for mistake in wrong_data(cfg)}


def test_a_frame_and_batches_that_fit_have_none(tiny: list[str]):
    assert not _found(tiny)


@pytest.mark.parametrize(
    ("override", "key", "said", "is_error"),
    [
        ("sampler.args.n_labels=7", "sampler.args.n_labels", "the training part has 6 labels", True),
        ("sampler.args.n_instances=40", "sampler.args.n_instances", "the same photo stands several times", False),
        ("memory_size=31", "criterion.args.memory_size", "of 30 training photos", False),
        ("metric_args.cmc_top_k=[1,10]", "metric_args.cmc_top_k", "only 9 photos are there to be found", False),
        ("dataframe_name=gone.csv", "dataset_root", "make it with oml-vit-ext convert folders", True),
    ],
)
def test_what_does_not_fit_is_told(override: str, key: str, said: str, is_error: bool, tiny: list[str]):
    sentence, error = _found(tiny, override)[key]
    assert said in sentence and error == is_error


def test_without_a_sampler_the_batch_must_be_there(tiny: list[str]):
    assert "expected a whole number" in _found(tiny, "sampler=null")["bs_train"][0]
    assert "no batch would be full" in _found(tiny, "sampler=null", "bs_train=64")["bs_train"][0]


def test_a_lonely_label_is_named_with_its_photo_and_the_flag(tiny: list[str], frame: pd.DataFrame, photos: Path):
    lonely = frame[frame.label_name == "product 0"].index[1:]
    frame.drop(lonely).to_csv(photos / "df.csv", index=False)
    sentence, is_error = _found(tiny)["sampler"]
    assert is_error and "'product 0' (product 0/IMG 0.JPG)" in sentence and "--drop-single" in sentence


def test_centres_for_fewer_labels_than_the_largest_are_told(tiny: list[str], frame: pd.DataFrame, photos: Path):
    """OML does not renumber labels, and ends with an assertion at the first batch that holds the largest."""
    frame.loc[frame.split == "train", "label"] *= 10
    frame.to_csv(photos / "df.csv", index=False)
    largest = frame[frame.split == "train"].label.max()
    variant = "irt/variant=arcface"
    sentence, is_error = _found(tiny, variant, "num_classes=6")["criterion.args.num_classes"]
    assert is_error and f"is 6, but the largest training label is {largest}: say num_classes={largest + 1}" in sentence
    assert "criterion.args.num_classes" not in _found(tiny, variant, f"num_classes={largest + 1}")


def test_missing_photos_are_counted_and_named(tiny: list[str], photos: Path):
    (photos / "product 2" / "IMG 1.JPG").unlink()
    sentence, is_error = _found(tiny)["dataset_root"]
    assert is_error and "1 photo of 40 is not below" in sentence and "product 2/IMG 1.JPG" in sentence


@pytest.mark.parametrize(("split", "said"), [("train", "no photos for validation"), ("validation", "no photos for tr")])
def test_a_part_without_photos_is_told(split: str, said: str, tiny: list[str], frame: pd.DataFrame, photos: Path):
    frame.assign(split=split, is_query=True, is_gallery=True).to_csv(photos / "df.csv", index=False)
    assert said in _found(tiny)["dataset_root"][0]


def test_one_label_has_nothing_to_be_told_from(tiny: list[str], frame: pd.DataFrame, photos: Path):
    kept = (frame.split == "validation") | (frame.label_name == "product 0")
    frame[kept].to_csv(photos / "df.csv", index=False)
    assert "the training part has one label" in _found(tiny)["dataset_root"][0]


@pytest.mark.parametrize(
    ("sampler", "transform", "told"),
    [
        (None, None, False),
        ([[64, 96], [96, 64]], [[64, 96], [96, 64]], False),
        ([[512, 384], [384, 512]], [[64, 48], [48, 64]], False),  # the same shapes
        (None, [[80, 80]], False),  # one size for all
        (None, [[64, 96], [80, 80], [96, 64]], True),
        ([[64, 96], [96, 64]], None, True),
    ],
)
def test_groups_of_sampler_and_transform_must_agree(
    sampler: list[list[int]] | None, transform: list[list[int]] | None, told: bool, tiny: list[str]
):
    parts = {
        "sampler": {"name": "group_size", "args": {"batch_size": 4} | ({"sizes": sampler} if sampler else {})},
        "transforms_train": {"name": "augs_dtop", "args": {"sizes": transform} if transform else {}},
    }
    cfg = composed("irt/train_photos", *tiny)
    for key, part in parts.items():
        cfg[key] = part
    found = [mistake for mistake in wrong_data(cfg) if mistake.key == "sampler.args.sizes"]
    assert bool(found) == told
    if told:
        assert "Give both the same sizes" in found[0].sentence and not found[0].is_error


def test_values_that_oml_refuses_are_told_with_their_file(tiny: list[str], frame: pd.DataFrame, photos: Path):
    frame.assign(split=frame.split.str.title()).to_csv(photos / "df.csv", index=False)
    assert any("in df.csv, split is 'Train'" in sentence for sentence in _sentences(tiny))


@pytest.mark.parametrize("label", ["cat", "inf"])
def test_labels_that_are_no_numbers_are_told(label: str, tiny: list[str], frame: pd.DataFrame, photos: Path):
    frame.assign(label=frame.label.map(lambda n: label if n == 1 else n)).to_csv(photos / "df.csv", index=False)
    assert any("expected whole numbers without a point, one for each label" in told for told in _sentences(tiny))


def test_paths_from_windows_are_told(tiny: list[str], frame: pd.DataFrame, photos: Path):
    frame.assign(path=frame.path.str.replace("/", "\\")).to_csv(photos / "df.csv", index=False)
    assert any("put / in the place of each \\" in sentence for sentence in _sentences(tiny))


def test_photos_that_stand_twice_are_told(tiny: list[str], frame: pd.DataFrame, photos: Path):
    validation = frame[frame.split == "validation"]
    pd.concat([frame, validation[:2]]).to_csv(photos / "df.csv", index=False)
    assert any("2 rows name a photo again" in sentence for sentence in _sentences(tiny))
    boxed = pd.concat([frame.assign(x_1=i, y_1=0, x_2=9, y_2=9) for i in range(2)])
    boxed.to_csv(photos / "df.csv", index=False)
    assert not any("a photo again" in sentence for sentence in _sentences(tiny)), "two objects on one photo"


def _sentences(tiny: list[str]) -> list[str]:
    fitting = ["sampler.args.n_labels=4", "memory_size=30", "metric_args.cmc_top_k=[1]"]
    return [mistake.sentence for mistake in wrong_data(composed("irt/train_photos", *tiny, *fitting))]
