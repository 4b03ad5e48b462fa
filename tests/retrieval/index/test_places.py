"""What is at a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.random_index import DIM, random_index, random_rows
from oml_vit_ext.retrieval import ImageIndex, MilvusIndex, SearchIndex, ShardedIndex, open_index
from oml_vit_ext.retrieval.index import is_milvus

QUERY = random_rows(range(3))


def _answers(index: ImageIndex) -> list[list[str]]:
    return [[hit.path for hit in hits] for hits in index.search(QUERY, k=5)]


def test_each_place_has_its_index_and_all_answer_alike(tmp_path: Path) -> None:
    made = random_index(tmp_path)
    made.save(tmp_path / "one")
    shards = ShardedIndex.create(tmp_path, made.fingerprint, 3)
    shards.add_embeddings(made.images, made.embeddings, made.fingerprint)
    shards.save(tmp_path / "shards")
    for place, kind in (("one", SearchIndex), ("shards", ShardedIndex)):
        found = open_index(tmp_path / place, root=tmp_path / "moved")
        assert type(found) is kind and found.root == tmp_path / "moved" and _answers(found) == _answers(made)
        assert found.holds("000001.png") and not found.holds("one.png") and not found.holds("000001.png", "0,0,1,1")
        found.close()


def test_milvus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("milvus_lite", reason="needs pip install 'oml-vit-ext[milvus]'")
    made = random_index(tmp_path)
    place = str(tmp_path / "photos.db")
    created = MilvusIndex.create(place, tmp_path, made.fingerprint, collection="some")
    created.add_embeddings(made.images, made.embeddings, made.fingerprint)
    created.close()
    found = open_index(place, collection="some")
    assert isinstance(found, MilvusIndex) and _answers(found) == _answers(made) and len(QUERY[0]) == DIM
    assert found.holds("000001.png") and not found.holds("one.png")
    found.close()


def test_what_is_nowhere(tmp_path: Path) -> None:
    assert is_milvus("http://host:19530") and is_milvus("a/b.db") and not is_milvus(Path("a/b"))
    for place in ("none", "none.db"):
        with pytest.raises(FileNotFoundError):
            open_index(tmp_path / place)
