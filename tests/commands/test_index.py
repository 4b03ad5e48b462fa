"""``oml-vit-ext index``: what differs from ``test_query.py``, which makes indexes as well."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.command_line import fails
from oml_vit_ext.commands.index import shard_of


def test_shards_are_disjoint_whole_and_stable():
    images = pd.DataFrame({"key": [f"{i}.jpg" for i in range(50)]})
    parts = [set(shard_of(images, f"{i}/3").key) for i in range(3)]
    assert set().union(*parts) == set(images.key) and sum(map(len, parts)) == 50
    assert set(shard_of(images[10:], "1/3").key) == parts[1] - set(images.key[:10])


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/2"])
def test_a_wrong_shard_is_told(shard: str):
    with pytest.raises(ValueError, match="expected i/n with i below n"):
        shard_of(pd.DataFrame({"key": ["a"]}), shard)


def test_the_folder_of_the_index_must_be_named():
    assert "--to" in fails("index", "photos", code=2)
