"""Dataframes as people write them: read, or refused in one sentence that names what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from oml.datasets.images import get_retrieval_images_datasets

from oml_vit_ext.datasets.frame import frame_mistakes, read_frame


def _frame(**columns: Any) -> pd.DataFrame:
    flags = pd.Series([None, None, True, True], dtype=object)
    good = {"label": [3, 3, 7, 7], "path": [f"{i}.jpg" for i in range(4)], "split": ["train"] * 2 + ["validation"] * 2}
    return pd.DataFrame({**good, "is_query": flags, "is_gallery": flags, **columns})


def _written(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """As it comes back from a file, in an existing folder of photos."""
    for path in frame.path.dropna():
        (folder / str(path)).touch()
    frame.to_csv(folder / "df.csv", index=False)
    return read_frame(folder / "df.csv")


BOX = {"x_1": 0, "y_1": 0, "x_2": 5, "y_2": 5}


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"is_query": [None, None, "TRUE", "FALSE"], "is_gallery": [None, None, "true", "true"]},
        {"is_query": [None, None, 1, 0], "is_gallery": [None, None, 0, 1]},
        {"label": [-5, -5, 2**40, 2**40]},
        {"label": ["003", "003", "007", "007"]},
        {**BOX, "x_1": [0.0, 1, 2, 3]},
    ],
)
def test_what_oml_takes_has_no_mistakes(tmp_path: Path, columns: dict[str, Any]):
    frame = _written(_frame(**columns), tmp_path)
    get_retrieval_images_datasets(tmp_path, None, None, verbose=False)
    assert list(frame_mistakes(frame)) == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"split": ["Train", "train", "val", "validation"]}, r"split is 'Train'; 'val' in 2 rows \(the first: line 2,"),
        ({"path": ["0.jpg", None, "2.jpg", "3.jpg"]}, r"path is nan in 1 row \(the first: line 3,"),
        ({"label": ["cat", "cat", "dog", "dog"]}, r"label is 'cat'; 'dog' in 4 rows .*pandas.factorize"),
        ({"label": [3.0, 3.0, 7.5, 7.5]}, r"label is 3.0; 7.5 in 4 rows .*without a point"),
        ({"label": [3.0, 3.0, None, 7]}, r"label is nan in 1 row \(the first: line 4, 2.jpg\)"),
        (
            {"is_query": [False, False, True, True]},
            r"is_query is False in 2 rows .* an empty cell in rows",
        ),
        ({"is_gallery": [None, None, "yes", "no"]}, r"is_gallery is 'yes'; 'no' in 2 rows .*expected True or False"),
        ({"is_query": [None, None, None, True]}, r"is_query is nan in 1 row"),
        (
            {"is_query": [None, None, False, True], "is_gallery": [None, None, False, True]},
            r"is_query is False in 1 row .*expected True here or in is_gallery",
        ),
        (
            {"label": [3, 3, 7, 8], "is_query": [None, None, True, False], "is_gallery": [None, None, False, True]},
            r"label is 7 in 1 row .*one that a gallery photo has",
        ),
        ({"x_1": 0, "x_2": 5}, r"there are the columns .*expected none or"),
        ({**BOX, "x_2": 5.5}, r"x_2 is 5.5 in 4 rows .*whole numbers of pixels"),
        ({**BOX, "x_1": -1}, r"x_1 is -1 in 4 rows .*from 0 on"),
        ({**BOX, "y_2": [5, 5, None, 5]}, r"y_2 is nan in 1 row \(the first: line 4, 2.jpg\), .*in each row"),
        (dict.fromkeys(BOX), r"x_1 is nan in 4 rows"),
        ({**BOX, "x_2": [5, 5, 5, 0]}, r"x_2 is 0 in 1 row \(the first: line 5, 3.jpg\), expected more than x_1"),
    ],
)
def test_what_oml_refuses_is_one_sentence(tmp_path: Path, columns: dict[str, Any], said: str):
    frame = _written(_frame(**columns), tmp_path)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        get_retrieval_images_datasets(tmp_path, None, None, verbose=False)
    assert any(re.search(said, sentence) for sentence in frame_mistakes(frame)), list(frame_mistakes(frame))


def test_a_part_without_a_question_is_told(tmp_path: Path):
    """OML takes it, and then fails on its metrics."""
    frame = _written(_frame(is_query=[None, None, False, False]), tmp_path)
    assert list(frame_mistakes(frame)) == ["no row for validation has is_query True, so no metric can be computed."]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "df.csv cannot be read as a table: No columns"),
        ("label,path\n1,a".encode("utf-16"), "df.csv cannot be read as a table: 'utf-8' codec"),
        (b"label;path;split\n1;a;train\n", r"has no column 'label' but label;path;split, .*separated by commas"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "df.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_frame(tmp_path / "df.csv")


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
def test_tables_from_windows_are_read(tmp_path: Path, start: bytes):
    text = _frame()[["path", "label", "split", "is_query", "is_gallery"]].to_csv(index=False).replace("\n", "\r\n")
    (tmp_path / "df.csv").write_bytes(start + text.encode())
    assert read_frame(tmp_path / "df.csv").path.tolist() == [f"{i}.jpg" for i in range(4)]
