"""What the annotations of product sets say, before any image is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import miniature
from oml_vit_ext.datasets import convert
from oml_vit_ext.datasets.products import cars, cub, inshop, sop


def test_sop_takes_its_categories_from_the_folders(tmp_path: Path):
    miniature.sop(tmp_path)
    listing = sop(tmp_path)
    assert listing.frame.category.tolist() == ["bicycle_final", "bicycle_final", "chair_final"] * 2
    assert listing.image_folders == ("bicycle_final", "chair_final")
    (tmp_path / "Ebay_test.txt").write_text("image_id class super_class_id path\n4 3 1 bicycle_final/3_0.JPG\n")
    with pytest.raises(ValueError, match=r"Ebay_test\.txt has no column 'class_id' but image_id, class, super"):
        sop(tmp_path)


def test_tables_of_cub_belong_together_by_the_number_of_the_image(tmp_path: Path):
    miniature.cub(tmp_path)
    expected = cub(tmp_path, boxes=True).frame
    for name in ("image_class_labels.txt", "bounding_boxes.txt"):
        lines = (tmp_path / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join(reversed(lines)))
    found = cub(tmp_path, boxes=True).frame
    assert found.equals(expected)
    assert found[["x_1", "x_2", "y_1", "y_2"]].to_numpy()[0].tolist() == [1, 6, 2, 5], "left, right, top, bottom"
    assert found.x_2[2] == 22, "2.7 + 20.0, cut; the image ends at 12, which is seen to later"


def test_the_official_split_of_cub_is_that_of_its_file(tmp_path: Path):
    miniature.cub(tmp_path)
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 0\n3 1\n4 1\n5 1\n")
    listing = cub(tmp_path, official_split=True)
    assert listing.frame.split.tolist() == ["validation"] * 2 + ["train"] * 3
    assert (listing.counts.train_images, listing.counts.queries) == (5_994, None)


def test_a_table_of_another_width_is_named(tmp_path: Path):
    miniature.cub(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1 7\n2 1 7\n")
    with pytest.raises(ValueError, match=r"image_class_labels\.txt has 3 columns, expected 2: image, label"):
        cub(tmp_path)


def test_roles_of_inshop_are_those_of_the_list(tmp_path: Path):
    miniature.inshop(tmp_path)
    listing = inshop(tmp_path)
    rows = [line.split() for line in (tmp_path / "list_eval_partition.txt").read_text().splitlines()[2:]]
    assert listing.frame.label.tolist() == [int(item.removeprefix("id_")) for _, item, _ in rows]
    assert listing.frame.path.tolist() == [name.replace("img/", "img_highres/", 1) for name, *_ in rows]
    for column, role in (("is_query", "query"), ("is_gallery", "gallery")):
        expected = [None if status == "train" else status == role for *_, status in rows]
        assert listing.frame[column].tolist() == expected
    assert listing.drop_single


@pytest.mark.parametrize("layout", [miniature.cars, miniature.cars_devkit])
def test_both_layouts_of_cars_say_the_same(tmp_path: Path, layout):
    layout(tmp_path)
    frame = cars(tmp_path, boxes=True).frame
    assert all((tmp_path / path).is_file() for path in frame.path)
    assert sorted(zip(frame.label, frame.split, strict=True)) == [
        (1, "train"),
        (1, "train"),
        (98, "train"),
        (99, "validation"),
        (196, "validation"),
    ]
    assert {tuple(row) for row in frame[["x_1", "x_2", "y_1", "y_2"]].to_numpy()} == {(1, 9, 2, 7)}


def test_a_file_without_annotations_of_cars_is_named(tmp_path: Path):
    (tmp_path / "cars_annos.mat").write_bytes(b"no MATLAB here, but long enough for a header of its version" * 3)
    with pytest.raises(
        ValueError, match=r"cars_annos\.mat holds no annotations of CARS196: .*cannot be read as a MATLAB file"
    ):
        cars(tmp_path)


@pytest.mark.parametrize("folder", ["Anno", "Eval", "."])
def test_inshop_lists_lie_where_people_put_them_and_may_be_from_windows(tmp_path: Path, folder: str):
    miniature.inshop(tmp_path)
    expected = convert("inshop", tmp_path, boxes=True, check=False, verbose=False).path.tolist()
    for name in ("list_eval_partition.txt", "list_bbox_inshop.txt"):
        text = (tmp_path / name).read_text().replace("\n", "\r\n")
        (tmp_path / name).unlink()
        (tmp_path / folder).mkdir(exist_ok=True)
        to = "Anno" if folder == "Eval" and "bbox" in name else folder
        (tmp_path / to).mkdir(exist_ok=True)
        (tmp_path / to / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = convert("inshop", tmp_path, boxes=True, check=False, verbose=False)
    assert found.path.tolist() == expected


@pytest.mark.parametrize("folder", ["img_highres/", "Img/img/", "./img/", ""])
def test_inshop_lists_may_name_either_folder(tmp_path: Path, folder: str):
    miniature.inshop(tmp_path)
    expected = convert("inshop", tmp_path, boxes=True, check=False, verbose=False)
    file = tmp_path / "list_eval_partition.txt"
    file.write_text(file.read_text().replace("img/", folder).replace("train", "TRAIN").replace("query", "Query"))
    assert convert("inshop", tmp_path, boxes=True, check=False, verbose=False).equals(expected)


def test_other_rows_of_inshop_are_told(tmp_path: Path):
    miniature.inshop(tmp_path)
    file, boxes = tmp_path / "list_eval_partition.txt", tmp_path / "list_bbox_inshop.txt"
    whole = file.read_text(), boxes.read_text()
    file.write_text(whole[0].replace("gallery", "galery"))
    with pytest.raises(ValueError, match=r"has the status 'galery', expected train, query or gallery\."):
        inshop(tmp_path)
    file.write_text(whole[0])
    boxes.write_text(whole[1].replace("01_3_back", "01_4_back"))
    with pytest.raises(
        ValueError, match=r"has no box for 1 image of .*list_eval_partition\.txt, expected one for each"
    ):
        inshop(tmp_path, boxes=True)


def test_columns_of_sop_may_stand_behind_tabs(tmp_path: Path):
    miniature.sop(tmp_path)
    expected = sop(tmp_path).frame
    for file in tmp_path.glob("*.txt"):
        file.write_text(file.read_text().replace(" ", "\t"))
    assert sop(tmp_path).frame.equals(expected)
