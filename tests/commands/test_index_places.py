"""Where an index is kept: folder or Milvus, told by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from oml_vit_ext.commands.index_places import exists, is_milvus, opened


def test_a_name_says_what_it_is():
    assert is_milvus("http://host:19530") and is_milvus("a/b.db") and not is_milvus("a/b")


def test_nothing_is_there_yet(in_tmp_path: Path):
    assert not exists("photo_index") and not exists("photos.db")
    with pytest.raises(FileNotFoundError, match="is not an index"), opened("photo_index"):
        pass
