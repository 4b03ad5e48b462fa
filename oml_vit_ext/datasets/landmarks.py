"""Landmark sets: SfM-120k, GLDv2, and Revisited Oxford and Paris."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from oml.const import LABELS_COLUMN

from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.common.safe_pickle import read_pickle
from oml_vit_ext.datasets.listing import (
    TRAIN,
    VALIDATION,
    Counts,
    Listing,
    find_file,
    find_folder,
    make_frame,
    read_table,
)
from oml_vit_ext.datasets.revisited import load_revisited
from oml_vit_ext.datasets.whereabouts import find_root

_SFM = "retrieval-SfM-120k"


def sfm120k(root: Path, train_on_all: bool = False) -> Listing:
    """SfM-120k in cirtorch's layout: ``retrieval-SfM-120k.pkl`` and ``ims/yz/wx/uv/<...uvwxyz>``.

    Labels are the 3D models. The pairs are those of the file: images of one model need not show the same part of it.
    The file lists 91 642 + 6 403 images of 551 + 162 models. The 117 369 images that DToP counts for the same 713
    models hold further validation images, which the file does not list.

    Args:
        root: The folder that holds the file, or the one that holds ``train/retrieval-SfM-120k``.
        train_on_all: Put all 713 models into the training set, for classification as in DToP; the models of the
            validation set are then in both.
    """
    places = (f"{_SFM}.pkl", f"train/{_SFM}/{_SFM}.pkl", f"{_SFM}/{_SFM}.pkl")
    source = find_file(find_root(root, *places), *places)
    content = read_pickle(source)
    parts = {mode: _sfm_part(content, mode, source) for mode in ("train", "val")}
    train, val = parts["train"], parts["val"]
    labels = {mode: np.asarray(part["cluster"], dtype=np.int64) for mode, part in parts.items()}
    if set(labels["train"]) & set(labels["val"]):  # numbered in each part on its own
        labels["val"] = labels["val"] + labels["train"].max() + 1
    paths = {mode: pd.Series([_sfm_path(str(cid)) for cid in part["cids"]]) for mode, part in parts.items()}
    queries = np.isin(np.arange(len(val["cids"])), np.asarray(val["qidxs"], dtype=np.int64))
    frame = pd.concat(
        [
            make_frame(labels["train"], paths["train"], True),
            make_frame(labels["val"], paths["val"], False, is_query=queries),
        ],
        ignore_index=True,
    )
    if train_on_all:
        frame = pd.concat([make_frame(labels["val"], paths["val"], True), frame], ignore_index=True)
    pairs = [
        pd.DataFrame(
            {
                "anchor": paths[mode].to_numpy()[np.asarray(part["qidxs"], dtype=np.int64)],
                "positive": paths[mode].to_numpy()[np.asarray(part["pidxs"], dtype=np.int64)],
                "split": {"train": TRAIN, "val": VALIDATION}[mode],
            }
        )
        for mode, part in (("train", train), ("val", val))
    ]
    return Listing(
        root=source.parent,
        frame=frame,
        counts=Counts(91_642 + 6_403 * train_on_all, 551 + 162 * train_on_all, 6_403, 162, queries=None, gallery=6_403),
        source=source,
        pairs=pd.concat(pairs, ignore_index=True).drop_duplicates(ignore_index=True),
    )


def gldv2_clean(root: Path, exclude_labels: str | Path | None = None) -> Listing:
    """GLDv2-clean: ``train_clean.csv`` and images ``train/a/b/c/abc....jpg``; all are for training.

    Labels are numbered from 0 in the order of the landmarks' ids, which stay in the column ``landmark_id``.

    Args:
        root: The folder that holds the list, or one above.
        exclude_labels: A file of landmark ids that are left out, one in a line, or a CSV with the column
            ``landmark_id``. For training without the landmarks of Revisited Oxford and Paris, of which GLDv2-clean
            holds some: see Song et al., On Train-Test Class Overlap and Detection for Image Retrieval, arXiv
            2404.01524.
    """
    places = ("train_clean.csv", "train/train_clean.csv", "metadata/train_clean.csv")
    root = find_root(root, *places)
    source = find_file(root, *places)
    table = _read_list(source, dtype={"images": str})
    if list(table.columns[:2]) != ["landmark_id", "images"]:
        raise ValueError(f"{source} has the columns {', '.join(table.columns)}, expected landmark_id and images.")
    table = table.assign(id=table["images"].str.split()).explode("id", ignore_index=True)
    counts = Counts(train_images=1_580_470, train_labels=81_313)
    if exclude_labels is not None:
        table, counts = _without_landmarks(table, counts, Path(exclude_labels), source)
    listing = _gldv2(root, source, table, counts)
    ids = listing.frame[LABELS_COLUMN]
    numbers = np.unique(ids, return_inverse=True)[1]
    return replace(listing, frame=listing.frame.assign(**{LABELS_COLUMN: numbers, "landmark_id": ids}))


def gldv2_noisy(root: Path) -> Listing:
    """The whole training set of GLDv2: ``train.csv`` and images ``train/a/b/c/abc....jpg``."""
    places = ("train.csv", "train/train.csv", "metadata/train.csv")
    root = find_root(root, *places)
    source = find_file(root, *places)
    table = _read_list(source, usecols=["id", "landmark_id"], dtype={"id": str})
    return _gldv2(root, source, table, Counts(train_images=4_132_914, train_labels=203_094))


def roxford5k(root: Path) -> Listing:
    """Revisited Oxford as a frame for OML, see :func:`_revisited`."""
    return _revisited(root, "roxford5k", Counts(queries=70, gallery=4_993))


def rparis6k(root: Path) -> Listing:
    """Revisited Paris as a frame for OML, see :func:`_revisited`."""
    return _revisited(root, "rparis6k", Counts(queries=70, gallery=6_322))


def _revisited(root: Path, name: str, counts: Counts) -> Listing:
    """Queries with their boxes, the database as gallery.

    OML knows one label per image and no junk. So the label is the landmark, taken from the query's name, for the
    queries and for their easy and hard images; every other image, junk included, has a label of its own. OML's
    figures on this frame follow the training of a model; those of the papers come from ``evaluate_revisited``.
    """
    data = load_revisited(root, name)
    landmarks = [path.stem.rpartition("_")[0] or path.stem for path in data.query_paths]
    labels_of_queries, names = pd.factorize(np.array(landmarks))
    labels = len(names) + np.arange(len(data.database_paths))
    for label, truth in reversed(list(zip(labels_of_queries, data.ground_truth, strict=True))):
        for kind in ("easy", "hard"):
            labels[np.asarray(truth[kind], dtype=np.int64)] = label
    is_query = np.arange(len(landmarks) + len(labels)) < len(landmarks)
    sides = np.full((len(is_query), 4), np.nan)  # the whole image, see ``convert``
    sides[is_query] = data.query_boxes
    frame = make_frame(
        np.concatenate([labels_of_queries, labels]),
        [path.as_posix() for path in [*data.query_paths, *data.database_paths]],
        False,
        is_query=is_query,
        is_gallery=~is_query,
        x_1=sides[:, 0],
        x_2=sides[:, 2],
        y_1=sides[:, 1],
        y_2=sides[:, 3],
    )
    return Listing(data.root, frame, counts, data.root / f"gnd_{name}.pkl", image_folders=("jpg",))


def _read_list(source: Path, **how: Any) -> pd.DataFrame:
    if not source.stat().st_size:
        raise ValueError(f"{source} is empty, expected a list of landmarks and images.")
    table = read_table(source, **how)
    if table.empty:
        raise ValueError(f"{source} lists no image, expected a list of landmarks and images.")
    return table


def _without_landmarks(table: pd.DataFrame, counts: Counts, file: Path, source: Path) -> tuple[pd.DataFrame, Counts]:
    """Rows of other landmarks than those of ``file``, and how many images and labels are to be expected then.

    Warns:
        How many landmarks and images are left out, and which of the file's landmarks the table does not have.
    """
    excluded = _landmark_ids(file)
    known = np.isin(excluded, table["landmark_id"])
    if not known.any():
        raise ValueError(
            f"{file} lists {counted(len(excluded), 'landmark')}, and {source} none of them: is it the list of "
            f"another data set?"
        )
    left_out = table["landmark_id"].isin(excluded)
    are = "is" if known.sum() == 1 else "are"
    told = f"gldv2_clean: {counted(int(known.sum()), 'landmark')} of {file} {are} left out, with "
    told += f"{counted(int(left_out.sum()), 'image')}."
    if not known.all():
        unknown = [str(number) for number in excluded[~known]]
        are = "is" if len(unknown) == 1 else "are"
        told += f" {counted(len(unknown), 'other landmark')} of it {are} not in {source.name}: {some(unknown)}."
    warnings.warn(told, stacklevel=2)
    if left_out.all():
        raise ValueError(f"{file} lists every landmark of {source}: there is nothing left to train on.")
    smaller = replace(
        counts,
        train_images=(counts.train_images or 0) - int(left_out.sum()),
        train_labels=(counts.train_labels or 0) - int(known.sum()),
    )
    return table[~left_out].reset_index(drop=True), smaller


def _landmark_ids(file: Path) -> NDArray[np.int64]:
    if not file.is_file():
        raise FileNotFoundError(f"exclude_labels is {str(file)!r}: there is no such file.")
    lines = [line.split(",") for line in file.read_text().split("\n") if line.strip()]
    column = 0
    if lines and "landmark_id" in (names := [name.strip() for name in lines[0]]):
        column = names.index("landmark_id")
        lines = lines[1:]
    ids = [line[column].strip() if column < len(line) else "" for line in lines]
    wrong = [text for text in ids if not text.isdigit()]
    if wrong or not ids:
        found = f"the line {wrong[0]!r}" if wrong else "no line"
        raise ValueError(f"{file} has {found}, expected the id of a landmark in each line, or a column landmark_id.")
    return np.unique(np.array(ids, dtype=np.int64))


def _gldv2(root: Path, source: Path, table: pd.DataFrame, counts: Counts) -> Listing:
    ids = table["id"]
    if ids.isna().any():
        landmark = table["landmark_id"][ids.isna()].iloc[0]
        raise ValueError(f"{source} lists no image for the landmark {landmark}, expected at least one.")
    ids = ids.str.removesuffix(".jpg")
    short = ids[ids.str.len() < 3]
    if len(short):
        raise ValueError(f"{source} lists the image {short.iloc[0]!r}, expected an id of at least three letters.")
    below = ids.str[0] + "/" + ids.str[1] + "/" + ids.str[2] + "/" + ids + ".jpg"
    folder = find_folder(root, ("train", "images", "."), below)
    paths = below if folder == "." else folder + "/" + below
    return Listing(root, make_frame(table["landmark_id"], paths, True), counts, source)


def _sfm_part(content: Any, mode: str, source: Path) -> dict[str, Any]:
    try:
        part = dict(content[mode])
        missing = [key for key in ("cids", "cluster", "qidxs", "pidxs") if key not in part]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{source} has no part {mode!r}: expected the file of SfM-120k's tuples.") from None
    if missing:
        raise ValueError(f"{source}: the part {mode!r} has no {missing[0]!r}.")
    if len(part["cids"]) != len(part["cluster"]) or len(part["qidxs"]) != len(part["pidxs"]):
        raise ValueError(f"{source}: the lists of the part {mode!r} are not of equal length.")
    return part


def _sfm_path(cid: str) -> str:
    return f"ims/{cid[-2:]}/{cid[-4:-2]}/{cid[-6:-4]}/{cid}"
