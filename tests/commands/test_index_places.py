"""An index wherever it is: folder or shards; Milvus is in ``test_index.py``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from helpers.random_index import random_index, random_rows
from oml_vit_ext.commands.index_places import (
    changing,
    described,
    exists,
    opened,
    save,
    save_and_tell,
    saving_as_it_goes,
)
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


def test_a_long_run_saves_as_it_goes_and_tells_at_its_end(in_tmp_path: Path, capsys: pytest.CaptureFixture):
    made = random_index(in_tmp_path)
    how = saving_as_it_goes(made, "photo_index", 3)
    how["after_part"]()
    with pytest.warns(UserWarning, match="half-finished"), opened("photo_index") as index:
        assert len(index) == 40 and how["part_size"] == 3 and how["verbose"]
    save_and_tell(made, "photo_index", "40 added")
    assert capsys.readouterr().out == f"40 added\n{in_tmp_path / 'photo_index'}: 40 images, index Flat\n"


def _one(index: ShardedIndex):
    return pd.DataFrame({"path": ["a.png"]}), random_rows([0]), index.fingerprint
