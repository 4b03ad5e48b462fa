"""Stanford Online Products, CUB-200-2011, DeepFashion In-Shop, CARS196, in the layouts of OML's converters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oml_vit_ext.common.mat_file import read_struct
from oml_vit_ext.common.messages import counted
from oml_vit_ext.datasets.listing import Counts, Listing, find_file, find_folder, make_frame, read_table, read_text
from oml_vit_ext.datasets.whereabouts import find_root

_INSHOP_SQUARE = 256  # px
_INSHOP_FOLDERS = r"(?i)^(?:\./)?(?:(?:img|img_highres)/)+"  # before MEN or WOMEN: lists are written for either


def sop(root: Path) -> Listing:
    """Stanford Online Products: ``Ebay_train.txt``, ``Ebay_test.txt`` and a folder for each category."""
    root = find_root(root, "Ebay_train.txt")
    files = [find_file(root, name) for name in ("Ebay_train.txt", "Ebay_test.txt")]
    train, test = (_table(file, ["class_id", "path"]) for file in files)
    both = pd.concat([train, test], ignore_index=True)
    category = both["path"].str.split("/").str[0]
    return Listing(
        root=root,
        frame=make_frame(both["class_id"], both["path"], np.arange(len(both)) < len(train), category=category),
        counts=Counts(59_551, 11_318, 60_502, 11_316, 60_502, 60_502),
        source=files[0],
        image_folders=tuple(sorted(category.unique())),
    )


def cub(root: Path, boxes: bool = False, official_split: bool = False) -> Listing:
    """CUB-200-2011: ``images.txt``, ``image_class_labels.txt`` and ``images/``.

    The papers train on the first 100 classes and test on the others. The split that comes with the data, which OML's
     converter takes, has all 200 classes on both sides: it is for classification.
    """
    root = find_root(root, "images.txt")
    source = find_file(root, "images.txt")
    table = _space_separated(source, ["image", "path"])
    parts = [("image_class_labels.txt", ["label"])]
    parts += [("bounding_boxes.txt", ["x", "y", "width", "height"])] if boxes else []
    parts += [("train_test_split.txt", ["is_train"])] if official_split else []
    for name, columns in parts:
        table = table.merge(_space_separated(find_file(root, name), ["image", *columns]), on="image", validate="1:1")
    columns_of_boxes: dict[str, Any] = {}
    if boxes:
        right, bottom = table["x"] + table["width"], table["y"] + table["height"]
        columns_of_boxes = _whole({"x_1": table["x"], "x_2": right, "y_1": table["y"], "y_2": bottom})
    is_train = table["is_train"] == 1 if official_split else table["label"] <= 100
    by_class = Counts(5_864, 100, 5_924, 100, 5_924, 5_924)
    return Listing(
        root=root,
        frame=make_frame(table["label"], "images/" + table["path"], is_train, **columns_of_boxes),
        counts=Counts(5_994, 200, 5_794, 200) if official_split else by_class,
        source=source,
        image_folders=("images",),
    )


def inshop(root: Path, boxes: bool = False) -> Listing:
    """DeepFashion In-Shop: ``list_eval_partition.txt``, with boxes ``list_bbox_inshop.txt``, and ``img_highres/``.

    The lists may lie in ``Eval`` and ``Anno`` as in the download; without ``img_highres`` the small ``img`` is taken.
    The boxes of the list are those of the small images, which stand in the middle of squares of 256 px; they are scaled
    to the images that are there, in whatever folder.
    """
    places = tuple(f"{folder}list_eval_partition.txt" for folder in ("", "Eval/", "Anno/"))
    root = find_root(root, *places)
    source = find_file(root, *places)
    table = _inshop_table(source, ["image_name", "item_id", "evaluation_status"])
    columns: dict[str, Any] = {}
    if boxes:
        box_file = find_file(root, "list_bbox_inshop.txt", "Anno/list_bbox_inshop.txt")
        sides = ["x_1", "x_2", "y_1", "y_2"]
        known = len(table)
        table = table.merge(_inshop_table(box_file, ["image_name", *sides]), on="image_name", validate="1:1")
        if len(table) < known:
            raise ValueError(
                f"{box_file} has no box for {counted(known - len(table), 'image')} of {source}, expected one for each."
            )
        columns = _whole({side: table[side].astype(float) for side in sides})
    below = table["image_name"]
    folder = find_folder(root, ("img_highres", "Img/img_highres", "img", "Img/img"), below)
    status = table["evaluation_status"].str.lower()
    unknown = table["evaluation_status"][~status.isin(["train", "query", "gallery"])]
    if len(unknown):
        raise ValueError(f"{source} has the status {unknown.iloc[0]!r}, expected train, query or gallery.")
    # A list with larger coordinates was scaled by someone already. Small images are such squares themselves.
    of_squares = boxes and max(map(max, columns.values())) <= _INSHOP_SQUARE
    return Listing(
        root=root,
        frame=make_frame(
            table["item_id"].str.removeprefix("id_").astype(int),
            folder + "/" + below,
            status == "train",
            is_query=status == "query",
            is_gallery=status == "gallery",
            category=below.str.split("/").str[-3],
            **columns,
        ),
        counts=Counts(25_882, 3_997, 14_218 + 12_612, 3_985, 14_218, 12_612),
        source=source,
        image_folders=(folder,),
        drop_single=True,
        square_of_boxes=_INSHOP_SQUARE if of_squares else None,
    )


def cars(root: Path, boxes: bool = False, official_split: bool = False) -> Listing:
    """CARS196: ``cars_annos.mat`` and ``car_ims/``; or ``devkit/``, ``cars_test_annos_withlabels.mat``, ``cars_*/``.

    The papers train on the first 98 classes and test on the others; for ``official_split`` see :func:`cub`.
    """
    root = find_root(root, "cars_annos.mat", "devkit/cars_train_annos.mat", "cars_train_annos.mat")
    if (root / "cars_annos.mat").is_file():
        source = root / "cars_annos.mat"
        table = _annotations(source)
        table = table.assign(path=table["relative_im_path"].astype(str), is_train=table["test"].astype(int) == 0)
    else:
        source = find_file(root, "devkit/cars_train_annos.mat", "cars_train_annos.mat", "cars_annos.mat")
        test = find_file(root, "cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")
        table = pd.concat([_in_folder(source, "cars_train", True), _in_folder(test, "cars_test", False)])
    sides = {"x_1": "bbox_x1", "x_2": "bbox_x2", "y_1": "bbox_y1", "y_2": "bbox_y2"}
    columns = _whole({ours: table[theirs].astype(float) for ours, theirs in sides.items()}) if boxes else {}
    labels = table["class"].astype(int)
    return Listing(
        root=root,
        frame=make_frame(
            labels.to_numpy(),
            table["path"].to_numpy(),
            table["is_train"] if official_split else labels <= 98,
            **{name: values.to_numpy() for name, values in columns.items()},
        ),
        counts=Counts(8_144, 196, 8_041, 196) if official_split else Counts(8_054, 98, 8_131, 98, 8_131, 8_131),
        source=source,
        image_folders=tuple(sorted(set(table["path"].str.rpartition("/")[0]))),
    )


def _table(file: Path, columns: list[str]) -> pd.DataFrame:
    table = read_table(file, sep=r"[ \t]", engine="python")  # one of them: two mean that a value is missing
    return _with(columns, table, file)


def _space_separated(file: Path, columns: list[str]) -> pd.DataFrame:
    table = read_table(file, sep=r"\s+", header=None)
    if table.shape[1] != len(columns):
        raise ValueError(
            f"{file} has {counted(table.shape[1], 'column')}, expected {len(columns)}: {', '.join(columns)}."
        )
    return table.set_axis(columns, axis=1)


def _counted_table(file: Path, columns: list[str]) -> pd.DataFrame:
    """Tables of DeepFashion: the number of rows, the names of the columns, the rows."""
    table = _with(columns, read_table(file, sep=r"\s+", skiprows=1, dtype=str), file)
    announced = read_text(file).partition("\n")[0].strip()
    if announced != str(len(table)):
        raise ValueError(f"{file} announces {announced} rows but has {len(table)}: it was cut short or changed.")
    return table


def _inshop_table(file: Path, columns: list[str]) -> pd.DataFrame:
    table = _counted_table(file, columns)
    return table.assign(image_name=table["image_name"].str.replace(_INSHOP_FOLDERS, "", regex=True))


def _with(columns: list[str], table: pd.DataFrame, file: Path) -> pd.DataFrame:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r} but {', '.join(map(str, table.columns))}.")
    return table[columns]


def _annotations(file: Path) -> pd.DataFrame:
    """The struct array ``annotations`` of a MATLAB file of CARS196."""
    try:
        return pd.DataFrame(read_struct(file, "annotations"))
    except ValueError as error:
        raise ValueError(f"{file} holds no annotations of CARS196: {error}") from error


def _in_folder(file: Path, folder: str, is_train: bool) -> pd.DataFrame:
    table = _annotations(file)
    return table.assign(path=[f"{folder}/{name}" for name in table["fname"]], is_train=is_train)


def _whole(sides: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Coordinates cut to whole pixels, as OML's converters do."""
    return {name: values.astype(int) for name, values in sides.items()}
