"""Images and embeddings side by side, and only what is new goes to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oml_vit_ext.retrieval.index.image_list import COLUMNS
from oml_vit_ext.retrieval.index.table import EmbeddingTable


def _images(*keys: str, size: int = 1) -> pd.DataFrame:
    rows = [[key, key, "", f"label of {key}", size, 2 * size] for key in keys]
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object).astype({"size": np.int64, "mtime_ns": np.int64})


def _rows(*values: float) -> np.ndarray:
    return np.array([[value, value + 0.5] for value in values], dtype=np.float32)


def _content(table: EmbeddingTable) -> dict[str, list[float]]:
    rows = table.rows()
    return dict(zip(table.images.key, rows.block(0, len(rows)).tolist(), strict=True))


def _save(table: EmbeddingTable, folder: Path, generation: int) -> set[str]:
    """Returns the names of the files that were written."""
    table.join_new_parts()
    files, writers = table.files_to_write(generation)
    for name, write in writers.items():
        write(folder / name)
    table.mark_saved(files)
    return set(writers)


def test_rows_are_appended_or_replaced_by_their_key():
    table = EmbeddingTable()
    assert len(table) == 0 and table.put(_images("a", "b"), _rows(1, 2)) is False
    assert table.put(_images("c", "a", "d", size=7), _rows(3, 10, 4)) is True
    assert _content(table) == {"a": [10, 10.5], "b": [2, 2.5], "c": [3, 3.5], "d": [4, 4.5]}
    assert table.images["size"].tolist() == [7, 1, 7, 7] and len(table) == 4
    assert table.stamps(["d", "nowhere", "b"]) == {"d": (7, 14, "", "label of d"), "b": (1, 2, "", "label of b")}
    assert table.put(_images("a", size=8), _rows(10)) is False, "the same numbers as before"
    assert table.stamps(["a"])["a"][0] == 8


def test_what_was_given_is_not_changed_by_a_replacement():
    given = _rows(1, 2)
    table = EmbeddingTable()
    table.put(_images("a", "b"), given)
    table.put(_images("a"), _rows(9))
    assert given.tolist() == _rows(1, 2).tolist()


def test_a_save_writes_new_and_changed_parts_alone(tmp_path: Path):
    table = EmbeddingTable()
    table.put(_images("a", "b"), _rows(1, 2))
    table.put(_images("c"), _rows(3))
    assert _save(table, tmp_path, 1) == {"images-000001-000000.csv", "descriptors-000001-000000.npy"}
    assert _save(table, tmp_path, 2) == set()
    table.put(_images("d"), _rows(4))
    table.put(_images("e"), _rows(5))
    assert _save(table, tmp_path, 3) == {"images-000003-000001.csv", "descriptors-000003-000001.npy"}
    table.put(_images("b", size=9), _rows(8))
    assert _save(table, tmp_path, 4) == {"images-000004-000000.csv", "descriptors-000004-000000.npy"}
    assert [name for name, _ in table.files] == ["images-000004-000000.csv", "images-000003-000001.csv"]
    table.put(_images("b", "e", size=10), _rows(8, 5))
    assert _save(table, tmp_path, 5) == {"images-000005-000000.csv", "images-000005-000001.csv"}, "the same numbers"
    assert [name for _, name in table.files] == ["descriptors-000004-000000.npy", "descriptors-000003-000001.npy"]
    table.put(_images("d", size=11), _rows(4))
    table.drop(["a", "b", "c"])
    assert _save(table, tmp_path, 6) == {"images-000006-000000.csv"}
    table.put(_images("d", size=12), _rows(4))
    table.drop(["e"])
    assert len(_save(table, tmp_path, 7)) == 2
    read = EmbeddingTable.read(tmp_path, table.files, dim=2, mmap=False)
    assert _content(read) == _content(table) == {"d": [4, 4.5]}


@pytest.mark.parametrize("mmap", [False, True])
def test_it_comes_back_from_its_files(tmp_path: Path, mmap: bool):
    table = EmbeddingTable()
    table.put(_images("NA", 'quote"', "new\nline", "\udcff.png"), _rows(1, 2, 3, 4))
    _save(table, tmp_path, 1)
    table.put(_images("e", "NA", size=5), _rows(5, 6))
    _save(table, tmp_path, 2)
    read = EmbeddingTable.read(tmp_path, table.files, dim=2, mmap=mmap)
    assert _content(read) == _content(table) and len(read) == 5
    pd.testing.assert_frame_equal(read.images, table.images, check_dtype=False)
    assert read.stamps(["NA"]) == {"NA": (5, 10, "", "label of NA")}
    assert isinstance(read._parts[0], np.memmap) is mmap
