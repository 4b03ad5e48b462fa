"""An index wherever it is: folder or shards; Milvus is in ``test_index.py``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.random_index import random_index, random_rows
from oml_vit_ext.commands.index_places import changing, described, exists, opened, save
from oml_vit_ext.retrieval import ShardedIndex


def test_nothing_is_there_yet(in_tmp_path: Path):
    assert not exists("photo_index") and not exists("photos.db")
    with pytest.raises(FileNotFoundError, match="is not an index"), opened("photo_index"):
        pass


def test_nothing_is_left_where_there_is_no_index(in_tmp_path: Path):
    (in_tmp_path / "photos").mkdir()
    for place in ("nowhere", "photos"):
        with pytest.raises(FileNotFoundError, match="is not an index"), changing(place):
            pass
    assert [path.name for path in in_tmp_path.rglob("*")] == ["photos"]


def test_shards_are_kept_and_described(in_tmp_path: Path):
    made = ShardedIndex.create(in_tmp_path, random_index(in_tmp_path).fingerprint, 2)
    made.add_embeddings(*_one(made))
    save(made, "shards", finish=False)
    with pytest.warns(UserWarning, match="half-finished"), changing("shards") as index:
        save(index, "shards")
    assert exists("shards") and described(index, "shards").endswith("shards: 1 image in 2 shards, index Flat")


def _one(index: ShardedIndex):
    return pd.DataFrame({"path": ["a.png"]}), random_rows([0]), index.fingerprint
