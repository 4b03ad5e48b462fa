"""Converters on random trees of folders with odd names, and on lists with random damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from oml_vit_ext.datasets.convert import convert, read_listing
from oml_vit_ext.datasets.listing import Listing

# One pixel.
GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
NAMES = st.one_of(
    st.text(min_size=1, max_size=6),
    st.binary(min_size=1, max_size=4).map(os.fsdecode),
    st.sampled_from(
        [
            *("NA", "nan", "null", "None", "n/a", "1", "01", "1.0", "-0", "true", "train", "test", "val", "Testing"),
            *(
                " a",
                "a ",
                '"',
                "'",
                ",",
                ";",
                "a,b",
                'a"b',
                "\t",
                "\n",
                "\r",
                "a\r\nb",
                "\\",
                "a\\b",
                "%20",
                "#",
                "é",
                "e\u0301",
            ),
            *(
                "\u05d0\u05d1",
                "\u0645\u0631\u062d\u0628\u0627",
                "\u732b",
                "\U0001f600",
                "\u200b",
                "\ufeff",
                "\u202e",
                "-x",
                "~",
                "=1+1",
            ),
        ]
    ),
).filter(lambda name: "/" not in name and "\0" not in name and name not in (".", "..") and len(os.fsencode(name)) < 100)


def can_be_named(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a pair, which no file system takes
        return False
    return True


TREES = st.lists(
    st.tuples(st.lists(NAMES.filter(can_be_named), min_size=1, max_size=3), NAMES.filter(can_be_named)),
    min_size=1,
    max_size=6,
)


def plant(root: Path, tree: list[tuple[list[str], str]]) -> set[str]:
    """Makes the tree; the paths of the images below it."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    planted = set()
    for folders, name in tree:
        path = root.joinpath(*folders, f"{name}.gif")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(GIF)
        except OSError:  # a folder where a file is, or the reverse
            continue
        planted.add(os.path.relpath(path, root))
    return planted


@pytest.mark.filterwarnings("ignore")
@fuzz(short=30, long=1_200)
@given(TREES)
def test_trees_of_folders(tmp_path_factory: Any, tree: list[tuple[list[str], str]]):
    root = Path(tmp_path_factory.getbasetemp()) / "tree"
    planted = plant(root, tree)
    frame = result_or_refusal(lambda: convert("folders", root, verbose=False, n_threads=1))
    if isinstance(frame, Refusal):
        return
    back = pd.read_csv(root / "df.csv", index_col=False)  # as OML reads it
    assert back.path.tolist() == frame.path.tolist() and len(set(back.path)) == len(back) > 0
    seen = {path for path in planted if not any(part.startswith(".") for part in Path(path).parts)}
    assert set(back.path) <= seen and all((root / path).is_file() for path in back.path)
    classes = [os.path.dirname(path) for path in back.path]
    in_splits = back.split.nunique() > 1
    if not in_splits:  # a class is the folder, however it is called
        assert len(set(zip(classes, back.label, strict=True))) == len(set(classes)) == back.label.nunique()
        assert set(back.path) == {path for path in seen if "\r" not in path and is_utf8(path)}
    assert back.label_name.notna().all() and (back.groupby("label").label_name.nunique() == 1).all()


def is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


LISTS: dict[str, dict[str, str]] = {
    "sop": {
        "Ebay_train.txt": "image_id class_id super_class_id path\n1 1 1 a/0.gif\n2 1 1 a/1.gif\n3 2 1 b/2.gif\n",
        "Ebay_test.txt": "image_id class_id super_class_id path\n1 3 1 a/3.gif\n2 3 1 a/4.gif\n",
    },
    "cub": {
        "images.txt": "1 a/0.gif\n2 a/1.gif\n3 b/2.gif\n",
        "image_class_labels.txt": "1 1\n2 1\n3 101\n",
        "bounding_boxes.txt": "1 0 0 1 1\n2 0.0 0.0 1.0 1.0\n3 0 0 1 1\n",
        "train_test_split.txt": "1 1\n2 1\n3 0\n",
    },
    "inshop": {
        "list_eval_partition.txt": "3\nimage_name item_id evaluation_status\nimg/W/a/id_1/0.gif id_1 train\n"
        "img/W/a/id_2/1.gif id_2 query\nimg/W/a/id_2/2.gif id_2 gallery\n",
        "list_bbox_inshop.txt": "3\nimage_name clothes_type pose_type x_1 y_1 x_2 y_2\nimg/W/a/id_1/0.gif 1 1 0 0 1 1\n"
        "img/W/a/id_2/1.gif 1 1 0 0 1 1\nimg/W/a/id_2/2.gif 1 1 0 0 1 1\n",
    },
    "gldv2_clean": {"train_clean.csv": "landmark_id,images\n1,abcd abce\n2,bcde\n"},
    "gldv2_noisy": {"train.csv": "id,url,landmark_id\nabcd,x,1\nabce,x,1\n"},
    "nc_clean": {
        "annotation_clean_train.txt": "a/0.gif 0\na/1.gif 0\nb/2.gif 1\n",
        "annotation_clean_val.txt": "a/3.gif 0\nb/4.gif 1\n",
    },
}
OPTIONS = {"cub": ["boxes", "official_split"], "inshop": ["boxes"]}
DAMAGE = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [
            "",
            "\n",
            "\r\n",
            " ",
            "\t",
            ",",
            '"',
            "nan",
            "NaN",
            "inf",
            "-1",
            "1e30",
            "1.5",
            "999999999999999999999",
            "../",
            "/",
            "\\",
            "\x00",
            "id_",
            "3",
        ]
    ),
)


@st.composite
def lists(draw: Any) -> tuple[str, dict[str, bytes], dict[str, bool]]:
    """The name of a data set, its files with some damage, and options."""
    name = draw(st.sampled_from(sorted(LISTS)))
    files = {file: text.encode() for file, text in LISTS[name].items()}
    for _ in range(draw(st.integers(0, 3))):
        file = draw(st.sampled_from(sorted(files)))
        content = bytearray(files[file])
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 12))] = draw(DAMAGE).encode("utf-8", "surrogatepass")
        if draw(st.integers(0, 9)) == 0:
            content[start:start] = draw(st.binary(max_size=3))
        files[file] = bytes(content)
    options = {option: draw(st.booleans()) for option in OPTIONS.get(name, [])}
    return name, files, options


@pytest.mark.filterwarnings("ignore")
@fuzz(short=50, long=3_000)
@given(lists())
def test_damaged_lists(tmp_path_factory: Any, given_lists: tuple[str, dict[str, bytes], dict[str, bool]]):
    name, files, options = given_lists
    root = Path(tmp_path_factory.getbasetemp()) / "lists"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for file, content in files.items():
        (root / file).write_bytes(content)
    listing = result_or_refusal(lambda: read_listing(name, root, **options), FileNotFoundError)
    assert isinstance(listing, (Refusal, Listing))
    if not isinstance(listing, Refusal):
        frame = result_or_refusal(
            lambda: convert(name, root, check=False, verbose=False, n_threads=1, **options), FileNotFoundError
        )
        assert isinstance(frame, Refusal), "there is no image"


@fuzz(short=20, long=500)
@given(
    st.one_of(st.sampled_from(["folders", "sop"]), ODD_VALUES),
    st.dictionaries(st.sampled_from(["train_labels", "boxes", "trainlabels"]), ODD_VALUES, max_size=2),
)
def test_odd_arguments(tmp_path_factory: Any, name: Any, options: dict[str, Any]):
    root = Path(tmp_path_factory.getbasetemp()) / "odd"
    plant(root, [(["a"], "0"), (["a"], "1"), (["b"], "2")])
    listing = result_or_refusal(lambda: read_listing(name, root, **options), FileNotFoundError)
    assert isinstance(listing, (Refusal, Listing))
