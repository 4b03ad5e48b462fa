"""A part of the training labels for validation: even, whole labels, nothing of the real validation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from oml_vit_ext.datasets import hold_out
from oml_vit_ext.datasets.__main__ import main


@pytest.fixture()
def dataframe(tmp_path: Path) -> Path:
    rows = [{"label": n // 2, "path": f"{n}.jpg", "split": "train" if n < 14 else "validation"} for n in range(20)]
    df = pd.DataFrame(rows).assign(is_query=[None] * 14 + [True] * 6, is_gallery=[None] * 14 + [True] * 6)
    df.to_csv(tmp_path / "df.csv", index=False)
    return tmp_path / "df.csv"


def test_every_third_label_is_held_out(dataframe: Path, capsys: pytest.CaptureFixture):
    assert main(["hold-out", str(dataframe), "--output", str(dataframe.with_name("new.csv"))]) == 0
    df = pd.read_csv(dataframe.with_name("new.csv"))
    assert df.path.tolist() == [f"{n}.jpg" for n in range(14)]
    assert sorted(df.label[df.split == "validation"]) == [2, 2, 5, 5]
    of_validation = df.split == "validation"
    for flag in ("is_query", "is_gallery"):
        assert (df[flag].astype(str)[of_validation] == "True").all() and df[flag][~of_validation].isna().all()
    assert "10 train images" in capsys.readouterr().out


def test_too_few_labels_are_told(dataframe: Path, capsys: pytest.CaptureFixture):
    new = str(dataframe.with_name("new.csv"))
    assert main(["hold-out", str(dataframe), "--output", new, "--every", "8"]) == 1
    assert "has 7 training labels, expected at least every=8" in capsys.readouterr().err
    with pytest.raises(ValueError, match="every is 1, expected a whole number of at least 2"):
        hold_out(dataframe, new, every=1)


def test_each_label_is_held_out_once_over_the_parts(dataframe: Path):
    new, held_out = dataframe.with_name("new.csv"), []
    for part in (1, 2, 3):
        assert main(["hold-out", str(dataframe), "--output", str(new), "--part", str(part)]) == 0
        df = pd.read_csv(new)
        held_out.append(sorted(df.label[df.split == "validation"].unique()))
    assert held_out == [[0, 3, 6], [1, 4], [2, 5]], "the last one is what is held out unless a part is given"
    with pytest.raises(ValueError, match="part is 4, expected a whole number from 1 to 3"):
        hold_out(dataframe, new, part=4)


@pytest.mark.parametrize("wanted", [2, 3, 4, 7, 10, 11])
def test_a_few_images_of_each_label_are_searched(dataframe: Path, wanted: int):
    rows = [{"label": n % 3, "path": f"{n}.jpg", "split": "train"} for n in range(32)]  # 11, 11 and 10 photos
    pd.DataFrame(rows).assign(is_query=None, is_gallery=None).to_csv(dataframe, index=False)
    df = hold_out(dataframe, dataframe.with_name("new.csv"), gallery=wanted, part=2)
    validation = df[df.split == "validation"]
    assert validation.label.unique().tolist() == [1] and (validation.is_query == True).all()  # noqa: E712
    searched = validation.is_gallery.tolist()
    assert sum(searched) == wanted and searched[0]
    chosen = [i for i, is_searched in enumerate(searched) if is_searched]
    gaps = [b - a for a, b in pairwise([*chosen, len(searched)])]
    assert max(gaps) - min(gaps) <= 1, "spread evenly over the label's list"
    assert df.is_gallery[df.split == "train"].isna().all()
    with pytest.raises(ValueError, match="gallery is 1, expected a whole number of at least 2"):
        hold_out(dataframe, dataframe.with_name("new.csv"), gallery=1)


def test_whole_kinds_are_held_out(dataframe: Path, capsys: pytest.CaptureFixture):
    new = dataframe.with_name("new.csv")
    kinds = {0: "apple", 1: "apple", 2: "pear", 3: "milk", 4: "milk", 5: "milk", 6: "leek"}
    df = pd.read_csv(dataframe)
    df.assign(category=df.label.map(kinds).fillna("bread")).to_csv(dataframe, index=False)
    assert main(["hold-out", str(dataframe), "--output", str(new), "--by", "category"]) == 0
    df = pd.read_csv(new)
    assert sorted(df.label[df.split == "validation"].unique()) == [3, 4, 5], "apple, leek, milk, pear: the third"
    assert main(["hold-out", str(dataframe), "--output", str(new), "--by", "kategory"]) == 1
    assert "'kategory': did you mean 'category'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="by is 'path', but label 0 has 2 values of it, expected one for each label"):
        hold_out(dataframe, new, by="path")
    with pytest.raises(ValueError, match="has 4 training values of 'category', expected at least every=5"):
        hold_out(dataframe, new, every=5, by="category")


def test_the_users_folder_in_paths(dataframe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("HOME", str(dataframe.parent))
    assert main(["hold-out", "~/df.csv", "--output=~/new.csv"]) == 0 and dataframe.with_name("new.csv").is_file()
    assert main(["join", "--train=~/df.csv", "--validation=~/new.csv", "--output=~/joined.csv"]) == 0
    assert str(dataframe.with_name("joined.csv")) in capsys.readouterr().out


def test_what_is_read_stays(dataframe: Path):
    before = dataframe.read_bytes()
    with pytest.raises(ValueError, match="expected another file than the one that is read"):
        hold_out(dataframe, dataframe)
    assert dataframe.read_bytes() == before
