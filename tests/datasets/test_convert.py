"""Data sets to dataframes: layouts, checks, what is left out, and that OML takes the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from oml.datasets.images import get_retrieval_images_datasets
from oml.registry.transforms import get_transforms
from oml.utils.dataframe_format import check_retrieval_dataframe_format
from PIL import Image

from helpers import miniature
from oml_vit_ext import datasets
from oml_vit_ext.datasets import DATASETS, convert, join, read_listing
from oml_vit_ext.datasets.__main__ import main
from oml_vit_ext.datasets.listing import Counts
from oml_vit_ext.datasets.products import sop

pytestmark = pytest.mark.filterwarnings("ignore:.*labels are in the training and in the validation set")


def converted(name: str, root: Path, **options) -> pd.DataFrame:
    """Converted without the papers' counts, and read back."""
    convert(name, root, check=False, verbose=False, output=root / "out.csv", **options)
    df = pd.read_csv(root / "out.csv")
    check_retrieval_dataframe_format(df, dataset_root=root, verbose=False)
    return df


def rows(df: pd.DataFrame, *columns: str) -> list[tuple]:
    return [tuple(row) for row in df[list(columns)].itertuples(index=False)]


def test_a_listing_needs_no_image(tmp_path: Path):
    miniature.sop(tmp_path)
    for file in tmp_path.rglob("*.JPG"):
        file.unlink()
    listing = read_listing("sop", tmp_path)
    assert len(listing.frame) == 6 and listing.source == tmp_path / "Ebay_train.txt"
    assert datasets.list_images is read_listing, "its former name"


def test_sop(tmp_path: Path):
    miniature.sop(tmp_path)
    df = converted("sop", tmp_path)
    assert rows(df, "label", "path", "split", "category")[0] == (1, "bicycle_final/1_0.JPG", "train", "bicycle_final")
    assert df.split.tolist() == ["train"] * 3 + ["validation"] * 3
    assert df.is_query.isna().tolist() == [True] * 3 + [False] * 3
    assert set(df.width) == {12} and set(df.height) == {8}


def test_cub_trains_on_the_first_hundred_classes(tmp_path: Path):
    miniature.cub(tmp_path)
    df = converted("cub", tmp_path)
    assert df[df.split == "train"].label.tolist() == [1, 1, 100] and df[df.split != "train"].label.tolist() == [
        101,
        200,
    ]
    assert df.path[0] == "images/001.Albatross/a.jpg" and "x_1" not in df


def test_cub_boxes_are_cut_to_whole_pixels_inside_the_image(tmp_path: Path):
    miniature.cub(tmp_path)
    df = converted("cub", tmp_path, boxes=True)
    assert rows(df, "x_1", "x_2", "y_1", "y_2")[:3] == [(1, 6, 2, 5), (0, 12, 0, 8), (2, 12, 1, 5)]


def test_the_official_split_of_cub_shares_labels_and_says_so(tmp_path: Path):
    miniature.cub(tmp_path)
    with pytest.warns(UserWarning, match="1 label is in the training and in the validation set"):
        df = converted("cub", tmp_path, official_split=True)
    assert df.split.tolist() == ["train", "validation", "train", "validation", "train"]


@pytest.mark.parametrize("as_downloaded", [False, True])
@pytest.mark.parametrize("boxes", [False, True])
def test_inshop(tmp_path: Path, as_downloaded: bool, boxes: bool):
    miniature.inshop(tmp_path, as_downloaded=as_downloaded)
    df = converted("inshop", tmp_path, boxes=boxes)
    folder = "Img/img" if as_downloaded else "img_highres"
    assert df.path[0] == f"{folder}/WOMEN/Dresses/id_00000002/02_1_front.jpg"
    assert df.label.tolist() == [2, 2, 7, 7, 7], "label 3 has one training image"
    assert df.category.tolist() == ["Dresses"] * 2 + ["Denim"] * 3
    assert df.is_query[2:].tolist() == [True, False, False] and df.is_gallery[2:].tolist() == [False, True, True]
    assert ("x_1" in df) == boxes
    if boxes:
        expected = (21, 235, 85, 192) if as_downloaded else (1, 11, 2, 7)
        assert rows(df, "x_1", "x_2", "y_1", "y_2")[0] == expected


def test_inshop_keeps_single_images_if_asked(tmp_path: Path):
    miniature.inshop(tmp_path)
    assert 3 in converted("inshop", tmp_path, drop_single=False).label.tolist()


@pytest.mark.parametrize("layout", [miniature.cars, miniature.cars_devkit])
def test_cars_trains_on_the_first_98_classes(tmp_path: Path, layout):
    layout(tmp_path)
    df = converted("cars", tmp_path, boxes=True)
    assert sorted(df[df.split == "train"].label) == [1, 1, 98] and sorted(df[df.split != "train"].label) == [99, 196]
    assert rows(df, "x_1", "x_2", "y_1", "y_2")[0] == (1, 9, 2, 7)
    official = converted("cars", tmp_path, official_split=True)
    assert sorted(official[official.split == "train"].label) == [1, 98, 99]


@pytest.mark.parametrize("own_numbers", [False, True])
def test_sfm120k(tmp_path: Path, own_numbers: bool):
    miniature.sfm120k(tmp_path, own_numbers=own_numbers)
    df = converted("sfm120k", tmp_path)
    train, val = df[df.split == "train"], df[df.split == "validation"]
    assert train.label.tolist() == [7, 7, 7, 9, 9, 9] and not set(train.label) & set(val.label)
    assert train.path.iloc[1] == "ims/01/dd/01/01aabbcc01dd01"
    assert val.is_query.tolist() == [True, False, False] and val.is_gallery.all()
    pairs = pd.read_csv(tmp_path / "out.pairs.csv")
    assert rows(pairs, "anchor", "positive")[1] == (train.path.iloc[0], train.path.iloc[2])
    assert pairs.split.tolist() == ["train"] * 3 + ["validation"]


def test_sfm120k_is_found_below_the_root_of_cirtorch(tmp_path: Path):
    folder = tmp_path / "train" / "retrieval-SfM-120k"
    miniature.sfm120k(folder)
    convert("sfm120k", tmp_path, check=False, verbose=False)
    assert (folder / "df.csv").is_file()


def test_sfm120k_for_classification_trains_on_all_models(tmp_path: Path):
    miniature.sfm120k(tmp_path)
    df = converted("sfm120k", tmp_path, train_on_all=True)
    assert set(df[df.split == "train"].label) == {7, 9, 11} and len(df) == 12


def test_gldv2(tmp_path: Path):
    miniature.gldv2(tmp_path)
    clean, noisy = converted("gldv2_clean", tmp_path), converted("gldv2_noisy", tmp_path)
    assert clean.label.tolist() == [0, 0, 1] and clean.landmark_id.tolist() == [1, 1, 7]
    assert set(clean.split) == {"train"}
    assert clean.path[0] == "train/0/a/1/0a1b2c.jpg"
    assert noisy.label.tolist() == [1, 1, 7, 203093]


def test_nc_clean_from_lists_and_from_folders(tmp_path: Path):
    miniature.nc_clean(tmp_path)
    from_lists = converted("nc_clean", tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        file.unlink()
    from_folders = converted("nc_clean", tmp_path)
    key = ["label", "path", "split"]
    assert sorted(rows(from_lists, *key)) == sorted(rows(from_folders, *key))
    assert from_lists.label.tolist() == [1, 0, 1]


def test_nc_clean_asks_for_photos(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/annotation_clean_train.txt").write_text("http://x.org/a.jpg 3\n")
    with pytest.raises(ValueError, match=r"no photo of the 1 that .* lists, the first: http://x.org/a.jpg"):
        convert("nc_clean", tmp_path)


def test_roxford_for_the_oml(tmp_path: Path):
    miniature.revisited(tmp_path)
    df = converted("roxford5k", tmp_path / "roxford5k")
    queries, gallery = df[df.is_query], df[df.is_gallery]
    assert queries.label.tolist() == [0, 0, 1] and len(gallery) == 12
    assert gallery.label.tolist()[:3] == [0, 0, 0] and gallery.label.tolist()[5:7] == [1, 1]
    assert gallery.label.nunique() == 2 + 12 - 5, "all others are alone"
    assert rows(queries, "x_1", "x_2", "y_1", "y_2")[0] == (1, 10, 1, 7), "rounded as in the official code"
    assert set(rows(gallery, "x_1", "x_2", "y_1", "y_2")) == {(0, 12, 0, 8)}


def test_folders(tmp_path: Path):
    for name in ("b/1.jpg", "a/2.png", "a/3.jpg", "c/4.webp"):
        miniature.image(tmp_path / name)
    df = converted("folders", tmp_path)
    assert rows(df, "label", "path", "split")[:3] == [
        (0, "a/2.png", "validation"),
        (0, "a/3.jpg", "validation"),
        (1, "b/1.jpg", "validation"),
    ]
    assert converted("folders", tmp_path, train_labels=2).split.tolist() == ["train"] * 3 + ["validation"]
    assert set(converted("folders", tmp_path, train_labels=-1).split) == {"train"}


def test_folders_in_splits_with_categories(tmp_path: Path):
    for name in ("train/fruit/apple/1.jpg", "train/fruit/apple/2.jpg", "test/fruit/pear/1.jpg", "test/drink/tea/1.jpg"):
        miniature.image(tmp_path / name)
    df = converted("folders", tmp_path)
    assert sorted(rows(df, "label", "split", "category")) == [
        (0, "validation", "drink"),
        (1, "train", "fruit"),
        (1, "train", "fruit"),
        (2, "validation", "fruit"),
    ]


@pytest.mark.parametrize("name", ["sop", "cub", "inshop", "sfm120k", "cars"])
def test_the_oml_reads_every_image(tmp_path: Path, name: str):
    getattr(miniature, name)(tmp_path)
    options = {"boxes": True} if name in ("cub", "inshop", "cars") else {}
    n = len(converted(name, tmp_path, **options))
    transform = get_transforms("norm_resize_torch", im_size=8)
    train, val = get_retrieval_images_datasets(tmp_path, transform, transform, dataframe_name="out.csv")
    assert len(train) + len(val) == n
    assert all(len(item["input_tensors"]) == 3 for data in (train, val) for item in data)


def test_a_quarter_turn_is_seen(tmp_path: Path):
    miniature.image(tmp_path / "a/1.jpg")
    exif = Image.Exif()
    exif[274] = 6
    Image.open(tmp_path / "a/1.jpg").save(tmp_path / "a/2.jpg", exif=exif)
    assert rows(converted("folders", tmp_path), "width", "height", "turned") == [(12, 8, False), (12, 8, True)]


def test_the_papers_counts_are_checked_and_files_named(tmp_path: Path):
    miniature.sop(tmp_path)
    (tmp_path / "chair_final/2_0.JPG").unlink()
    miniature.image(tmp_path / "chair_final/9_9.JPG")
    with pytest.raises(ValueError) as caught:
        convert("sop", tmp_path, verbose=False)
    text = str(caught.value)
    assert "3 train images, expected 59,551" in text and "2 validation labels, expected 11,316" in text
    assert "1 listed image is missing: chair_final/2_0.JPG" in text
    assert "1 image file is not listed: chair_final/9_9.JPG" in text
    assert not list(tmp_path.glob("*.csv*"))


def test_missing_images_stop_it_unless_unchecked(tmp_path: Path):
    miniature.nc_clean(tmp_path / "in")
    (tmp_path / "in/eiffel/3.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 image is left out: missing \(1\): eiffel/3.jpg"):
        assert len(converted("nc_clean", tmp_path / "in")) == 2
    assert (tmp_path / "in/out.left_out.txt").read_text() == "eiffel/3.jpg: missing\n"


def test_missing_and_extra_images_are_named_when_counts_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    miniature.sop(tmp_path)
    counts = Counts(3, 2, 3, 2, 3, 3)
    monkeypatch.setitem(DATASETS, "sop", lambda root: dataclasses.replace(sop(root), counts=counts))
    miniature.image(tmp_path / "chair_final/9_9.JPG")
    with pytest.warns(UserWarning, match=r"sop: 1 image file is not listed: chair_final/9_9.JPG"):
        convert("sop", tmp_path, verbose=False)
    (tmp_path / "df.csv").unlink()
    (tmp_path / "chair_final/2_0.JPG").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 6 images .* missing below .*: chair_final/2_0.JPG"):
        convert("sop", tmp_path, verbose=False)
    assert not (tmp_path / "df.csv").exists()


def test_broken_images_are_listed_and_left_out(tmp_path: Path):
    for i in range(3):
        miniature.image(tmp_path / f"a/{i}.jpg", size=(64, 64))
    (tmp_path / "a/0.jpg").write_text("not an image")
    content = (tmp_path / "a/1.jpg").read_bytes()
    (tmp_path / "a/1.jpg").write_bytes(content[: len(content) - 20])
    with pytest.warns(UserWarning, match=r"not an image \(1\): a/0.jpg"):
        assert converted("folders", tmp_path).path.tolist() == ["a/1.jpg", "a/2.jpg"]
    with pytest.warns(UserWarning, match="2 images are left out"):
        assert converted("folders", tmp_path, decode=True).path.tolist() == ["a/2.jpg"]
    assert (tmp_path / "out.left_out.txt").read_text().startswith("a/0.jpg: not an image\na/1.jpg: OSError")
    for name in ("a/0.jpg", "a/1.jpg"):
        (tmp_path / name).unlink()
    converted("folders", tmp_path)
    assert not (tmp_path / "out.left_out.txt").exists()


def test_queries_whose_gallery_is_broken_are_left_out(tmp_path: Path):
    miniature.inshop(tmp_path)
    for name in ("01_2_side", "01_3_back"):
        (tmp_path / f"img_highres/MEN/Denim/id_00000007/{name}.jpg").write_text("")
    with pytest.warns(UserWarning, match="inshop: 1 query is left out"):
        assert converted("inshop", tmp_path).label.tolist() == [2, 2]


def test_nothing_is_left_of_an_interrupted_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    miniature.sop(tmp_path)
    before = sorted(tmp_path.iterdir())

    def interrupted(*args, **kwargs):
        Path(args[1]).write_text("label,pa")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert("sop", tmp_path, check=False, verbose=False)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_input_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'sop'"):
        convert("sopp", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        convert("sop", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no Ebay_train.txt: is it the folder of this data set\?"):
        convert("sop", tmp_path)
    with pytest.raises(ValueError, match="holds no images"):
        convert("folders", tmp_path)
    miniature.sop(tmp_path)
    with pytest.raises(ValueError, match="option of sop: 'boxes'"):
        convert("sop", tmp_path, boxes=True)
    miniature.image(tmp_path / "loose.jpg")
    with pytest.raises(ValueError, match=r"loose.jpg lies in no class"):
        convert("folders", tmp_path)


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "a\\b.jpg"])
def test_paths_outside_of_the_folder_are_refused(tmp_path: Path, path: str):
    miniature.nc_clean(tmp_path)
    (tmp_path / "annotations/annotation_clean_train.txt").write_text(f"{path} 3\n")
    with pytest.raises(ValueError, match="expected paths below"):
        convert("nc_clean", tmp_path, check=False, verbose=False)


def test_images_listed_twice_are_refused(tmp_path: Path):
    miniature.nc_clean(tmp_path)
    list_file = tmp_path / "annotations/annotation_clean_train.txt"
    list_file.write_text(list_file.read_text() * 2)
    with pytest.raises(ValueError, match=r"2 images more than once, the first: eiffel/1.jpg"):
        convert("nc_clean", tmp_path, check=False, verbose=False)


def test_a_list_cut_short_is_refused(tmp_path: Path):
    miniature.inshop(tmp_path)
    file = tmp_path / "list_eval_partition.txt"
    file.write_text("".join(file.open().readlines()[:-1]))
    with pytest.raises(ValueError, match="announces 6 rows but has 5"):
        convert("inshop", tmp_path)


def test_a_joined_frame_trains_on_one_set_and_validates_on_another(tmp_path: Path):
    miniature.gldv2(tmp_path / "gldv2")
    miniature.sfm120k(tmp_path / "sfm")
    converted("gldv2_clean", tmp_path / "gldv2")
    converted("sfm120k", tmp_path / "sfm")
    join(tmp_path / "gldv2/out.csv", tmp_path / "sfm/out.csv", tmp_path / "both.csv")
    df = pd.read_csv(tmp_path / "both.csv")
    check_retrieval_dataframe_format(df, dataset_root=tmp_path, verbose=False)
    assert df.split.tolist() == ["train"] * 3 + ["validation"] * 3
    assert df.path[0] == "gldv2/train/0/a/1/0a1b2c.jpg" and df.path[3].startswith("sfm/ims/")
    assert not set(df.label[:3]) & set(df.label[3:])
    with pytest.raises(ValueError, match="does not lie below"):
        join(tmp_path / "gldv2/out.csv", tmp_path / "sfm/out.csv", tmp_path / "elsewhere/both.csv")
    with pytest.raises(ValueError, match="no rows of the split 'validation'"):
        join(tmp_path / "sfm/out.csv", tmp_path / "gldv2/out.csv", tmp_path / "both.csv")


def test_boxes_of_one_survive_joining(tmp_path: Path):
    miniature.sfm120k(tmp_path / "sfm")
    miniature.revisited(tmp_path)
    converted("sfm120k", tmp_path / "sfm", train_on_all=True)
    converted("roxford5k", tmp_path / "roxford5k")
    join(tmp_path / "sfm/out.csv", tmp_path / "roxford5k/out.csv", tmp_path / "both.csv")
    df = pd.read_csv(tmp_path / "both.csv")
    check_retrieval_dataframe_format(df, dataset_root=tmp_path, verbose=False)
    assert set(rows(df[df.split == "train"], "x_1", "x_2", "y_1", "y_2")) == {(0, 12, 0, 8)}
    assert rows(df[df.is_query == True], "x_1", "x_2", "y_1", "y_2")[0] == (1, 10, 1, 7)  # noqa: E712


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture):
    miniature.cub(tmp_path)
    assert main(["convert", "cub", str(tmp_path)]) == 1
    assert "expected 5,864" in capsys.readouterr().err
    assert main(["convert", "cub", str(tmp_path), "--no-check", "--boxes"]) == 0
    assert "cub: 3 train images, 2 train labels, 2 validation images" in capsys.readouterr().out
    assert (tmp_path / "df_with_bboxes.csv").is_file()
    assert main(["convert", "sop", str(tmp_path), "--boxes"]) == 1
    with pytest.raises(SystemExit):
        main(["convert", "sopp", str(tmp_path)])


def test_the_command_joins(tmp_path: Path, capsys: pytest.CaptureFixture):
    miniature.sop(tmp_path / "a")
    converted("sop", tmp_path / "a")
    files = [
        "--train",
        f"{tmp_path}/a/out.csv",
        "--validation",
        f"{tmp_path}/a/out.csv",
        "--output",
        f"{tmp_path}/j.csv",
    ]
    assert main(["join", *files]) == 0 and (tmp_path / "j.csv").is_file()


@pytest.mark.parametrize(
    "error", [KeyError("x"), IndexError("x"), TypeError("x"), OverflowError("x"), PermissionError("x")]
)
def test_damaged_annotations_are_one_sentence(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("oml_vit_ext.datasets.__main__.convert", fails)
    assert main(["convert", "sop", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Error: ") and "Traceback" not in told and len(told.splitlines()) == 1
    assert isinstance(error, OSError) or str(tmp_path) in told


def test_labels_that_are_missing_are_refused(tmp_path: Path):
    (tmp_path / "Ebay_train.txt").write_text(
        "image_id class_id super_class_id path\n1 1 1 chair_final/1.JPG\n2  1 a/2.JPG\n"
    )
    (tmp_path / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n3 2 1 chair_final/3.JPG\n")
    with pytest.raises(ValueError, match=r"The labels are .*expected whole numbers"):
        sop(tmp_path)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cub", {"images.txt": "1 a/0.jpg\n1 a/1.jpg\n", "image_class_labels.txt": "1 1\n"}),
        ("cub", {"images.txt": "1 a/0.jpg\n", "image_class_labels.txt": "1 one\n"}),
        (
            "sop",
            dict.fromkeys(("Ebay_train.txt", "Ebay_test.txt"), "image_id class_id path\n1 x a/0\n"),
        ),
        ("gldv2_noisy", {"train.csv": "identity,landmark_id\nabcd,1\n"}),
        ("gldv2_clean", {"train_clean.csv": b"landmark_id,images\n1,\xff\n"}),
        ("nc_clean", {"annotation_clean_train.txt": b"a/0.jpg \xff\n"}),
    ],
)
def test_damaged_annotations_are_one_sentence_with_their_place(tmp_path: Path, name: str, files: dict[str, Any]):
    for file, content in files.items():
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_listing(name, tmp_path)
    assert str(tmp_path) in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [[], {}, None, 3])
def test_a_name_that_is_no_text(tmp_path: Path, name: Any):
    with pytest.raises(ValueError, match="Unknown data set"):
        read_listing(name, tmp_path)


def test_a_wrong_option_is_not_the_fault_of_the_annotations(tmp_path: Path):
    miniature.image(tmp_path / "a/1.jpg")
    with pytest.raises(ValueError, match=r"^validation_share is 2\.0, expected a number from 0 to 1"):
        convert("folders", tmp_path, validation_share=2.0, verbose=False)


@pytest.mark.parametrize("wrong", ["2", 1.0, True])
def test_train_labels_are_a_whole_number(tmp_path: Path, wrong: Any):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=f"train_labels is {wrong!r}, expected a whole number"):
        read_listing("folders", tmp_path, train_labels=wrong)


def test_notes_of_somebody_are_not_taken_for_the_list_of_what_is_left_out(tmp_path: Path):
    for name in ("a/0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    notes = tmp_path / "df.left_out.txt"
    notes.write_text("to do\nask about the rights\n")
    with pytest.raises(FileExistsError, match="is no list of images that were left out: move it, or say --overwrite"):
        convert("folders", tmp_path, verbose=False, overwrite=False)
    assert notes.read_text() == "to do\nask about the rights\n" and not (tmp_path / "df.csv").exists()
    convert("folders", tmp_path, verbose=False)
    assert notes.read_text() == "to do\nask about the rights\n", "there is nothing to write"
    notes.write_text("a/2.png: not an image\n")
    convert("folders", tmp_path, verbose=False, overwrite=False)
    assert not notes.exists()
