"""Frames with OML's columns, counted and compared with what a paper says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from oml_vit_ext.datasets.listing import Counts, counts_of, find_file, find_folder, make_frame, read_table, read_text


def _frame():
    return make_frame(
        [5.0, 5.0, 7.0, 8.0, 8.0],
        ["a", "b", "c", "d", "e"],
        [True, True, False, False, False],
        is_query=[True, True, True, False, False],
        is_gallery=[True, True, False, True, True],
        category=list("xxyyz"),
    )


def test_training_rows_are_neither_queries_nor_gallery():
    frame = _frame()
    assert frame.split.tolist() == ["train"] * 2 + ["validation"] * 3
    assert frame.is_query.tolist() == [None, None, True, False, False]
    assert frame.is_gallery.tolist() == [None, None, False, True, True]
    assert frame.label.tolist() == [5, 5, 7, 8, 8] and frame.label.dtype == "int64"
    assert frame.category.tolist() == list("xxyyz")
    everything = make_frame([1, 2], ["a", "b"], False)
    assert everything.is_query.tolist() == everything.is_gallery.tolist() == [True, True]


def test_rows_are_counted_by_split_and_role():
    assert counts_of(_frame()) == Counts(2, 1, 3, 2, queries=1, gallery=2)
    assert counts_of(make_frame([1], ["a"], True)) == Counts(1, 1, 0, 0, 0, 0)


def test_only_what_the_papers_tell_is_compared():
    assert Counts().differences(_frame()) == []
    assert Counts(train_images=2, gallery=2).differences(_frame()) == []
    told = Counts(train_images=59_551, validation_labels=2, queries=0).differences(_frame())
    assert told == ["2 train images, expected 59,551", "1 query, expected 0"]


def test_counts_are_written_without_what_is_not_there():
    assert str(Counts(59_551, 11_318, None, 0)) == "59,551 train images, 11,318 train labels"


def test_the_first_file_that_exists_is_taken(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has no a\.txt nor Eval/a\.txt: is it the folder of this data set\?"):
        find_file(tmp_path, "a.txt", "Eval/a.txt")
    for name in ("Eval/a.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert find_file(tmp_path, "a.txt", "Eval/a.txt") == tmp_path / name


def test_a_folder_is_found_by_a_file_in_it(tmp_path: Path):
    for folder in ("img_highres", "img"):
        (tmp_path / folder).mkdir()
    assert find_folder(tmp_path, ("img_highres", "img"), pd.Series(["x.jpg"])) == "img_highres"
    (tmp_path / "img/x.jpg").touch()
    assert find_folder(tmp_path, ("img_highres", "img"), pd.Series(["gone.jpg", "x.jpg"])) == "img"


@pytest.mark.parametrize("content", [b"", b"a b\n1 2 3 4\n5\n6 7 8 9 10\n", b"a\xff\n1\n"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt cannot be read as a table: .*\.$"):
        read_table(tmp_path / "list.txt", sep=" ", index_col=False)


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"list\.txt cannot be read as text: .*, expected UTF-8\.$"):
        read_text(tmp_path / "list.txt")
