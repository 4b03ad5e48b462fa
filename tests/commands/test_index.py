"""``oml-vit-ext index``: what differs from ``test_query.py``, which makes indexes as well."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from helpers import ROOT
from helpers.command_line import fails, succeeds
from oml_vit_ext.commands.index import shard_of

SMALL = [
    *("--config-name", "irt/predict_demo", "irt/variant=irt_o"),
    f"pretrained={ROOT / 'examples/demo_weights/vit_tiny_emoji.safetensors'}",
]


def test_shards_are_disjoint_whole_and_stable():
    images = pd.DataFrame({"key": [f"{i}.jpg" for i in range(50)]})
    parts = [set(shard_of(images, f"{i}/3").key) for i in range(3)]
    assert set().union(*parts) == set(images.key) and sum(map(len, parts)) == 50
    assert set(shard_of(images[10:], "1/3").key) == parts[1] - set(images.key[:10])


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/2"])
def test_a_wrong_shard_is_told(shard: str):
    with pytest.raises(ValueError, match="expected i/n with i below n"):
        shard_of(pd.DataFrame({"key": ["a"]}), shard)


@pytest.fixture(scope="module")
def folder(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos``, twelve of them."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "photos").mkdir()
    for path in sorted((demo_slice / "images/noto").glob("*.jpg"))[:12]:
        (folder / "photos" / path.name).symlink_to(path)
    return folder


def test_shards_and_milvus_are_filled_asked_and_synced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("milvus_lite", reason="needs pip install 'oml-vit-ext[milvus]'")
    monkeypatch.chdir(folder)
    names = sorted(path.name for path in Path("photos").iterdir())
    answers = []
    for to, how in (("shards", ["--shards", "3"]), ("kept.db", [])):
        index = ["index", "photos", "--to", to, "--device", "cpu"]
        assert "12 added" in succeeds(*index, "--save-every", "5", *how, *SMALL)
        assert "12 unchanged" in succeeds(*index)
        answers.append(succeeds("query", f"photos/{names[3]}", "--index", to, "-k", "4", "--json"))
        assert "1 removed" in succeeds("sync", "--index", to, "--remove", names[0])
        assert "1 added" in succeeds("sync", "--index", to, "--device", "cpu")
    assert _paths(answers[0]) == _paths(answers[1]) and _paths(answers[0])[0] == names[3]
    assert "--shards is 2, but the index has shards 3" in fails("index", "photos", "--to", "shards", "--shards", "2")
    assert "--shards is 2, expected none in Milvus" in fails("index", "photos", "--to", "kept.db", "--shards", "2")


def _paths(answer: str) -> list[str]:
    return [hit["path"] for hit in json.loads(answer)[0]["hits"]]


def test_the_folder_of_the_index_must_be_named():
    assert "--to" in fails("index", "photos", code=2)
