"""``oml-vit-ext convert``"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from helpers.command_line import fails, succeeds
from oml_vit_ext.commands.convert import summary


def test_photos_are_split_by_label_and_the_next_step_is_told(photos: Path, tmp_path: Path):
    printed = succeeds("convert", "folders", str(photos))
    frame = pd.read_csv(photos / "df.csv")
    validation = sorted(frame.label_name[frame.split == "validation"].unique())
    assert validation == ["product 3", "product 7"], "evenly from the list of names"
    assert not set(validation) & set(frame.label_name[frame.split == "train"])
    assert "--validation-share" in printed and f"train irt/train_photos dataset_root={photos}" in printed
    row = next(line.split() for line in printed.splitlines() if line.startswith("train "))
    assert row == ["train", "6", "30", "5", "5", "5"]


def test_a_single_photo_is_something_to_be_found_but_no_question(photos: Path):
    (photos / "product 0" / "IMG 0.JPG").rename((photos / "alone").mkdir() or photos / "alone" / "1.jpg")
    printed = succeeds("convert", "folders", str(photos))
    alone = pd.read_csv(photos / "df.csv").set_index("label_name").loc["alone"]
    assert (alone.split, alone.is_query, alone.is_gallery) == ("validation", False, True)
    assert "1 class has one image: alone" in printed


def test_a_photo_cut_short_is_left_out_and_named(photos: Path):
    file = photos / "product 1" / "IMG 2.JPG"
    file.write_bytes(file.read_bytes()[:-200])
    printed = succeeds("convert", "folders", str(photos))
    assert "1 image is left out" in printed and "IMG 2.JPG" in printed
    assert "IMG 2.JPG" in (photos / "df.left_out.txt").read_text()


def test_an_edited_dataframe_is_kept(photos: Path):
    succeeds("convert", "folders", str(photos))
    succeeds("convert", "folders", str(photos))  # the same again
    edited = (photos / "df.csv").read_text().replace("product 5", "my cup")
    (photos / "df.csv").write_text(edited)
    assert "say --overwrite to replace it" in fails("convert", "folders", str(photos))
    assert (photos / "df.csv").read_text() == edited
    succeeds("convert", "folders", str(photos), "--train-labels", "4", "--overwrite")
    assert pd.read_csv(photos / "df.csv").groupby("split").label.nunique().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["foldres", "."], "did you mean 'folders'"), (["folders", "nowhere"], "nowhere is not a folder")],
)
def test_mistakes_are_one_sentence(arguments: list[str], said: str):
    assert said in fails("convert", *arguments)


def test_landmarks_of_a_list_are_left_out(tmp_path: Path):
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n7,0123 abcd\n9,00ff\n")
    for name in ("0123", "abcd", "00ff"):
        file = tmp_path / "train" / "/".join(name[:3]) / f"{name}.jpg"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(file)
    (tmp_path / "overlap.txt").write_text("9\n")
    exclude = ["--exclude-labels", str(tmp_path / "overlap.txt")]
    printed = succeeds("convert", "gldv2_clean", str(tmp_path), "--no-check", *exclude)
    frame = pd.read_csv(tmp_path / "df.csv")
    assert frame.landmark_id.tolist() == [7, 7] and frame.label.tolist() == [0, 0]
    assert "1 landmark of" in printed and "left out, with 1 image" in printed
    assert "Unknown option of folders: 'exclude_labels'" in fails("convert", "folders", str(tmp_path), *exclude)


def test_an_empty_part_is_counted_as_well():
    frame = pd.DataFrame({"label": [0, 0, 1], "split": ["train"] * 3})
    assert summary(frame).splitlines()[-1].split() == ["validation", "0", "0", "0", "0", "0"]
