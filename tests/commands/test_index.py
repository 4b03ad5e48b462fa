"""``oml-vit-ext index``: what differs from ``test_query.py``, which makes indexes as well."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import ROOT
from helpers.command_line import fails, succeeds
from helpers.random_index import random_index
from oml_vit_ext.commands.index import shard_of
from oml_vit_ext.retrieval import Embedder, ShardedIndex, open_index
from oml_vit_ext.retrieval.index import shard_number

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
    assert "--milvus-params is M=8, but" in fails("index", "photos", "--to", "kept.db", "--milvus-params", "M=8")


def test_what_an_index_is_made_of_is_not_changed_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    index = ["index", "photos", "--to", "kept", "--device", "cpu"]
    assert "12 added" in succeeds(*index, *SMALL)
    assert "12 unchanged" in succeeds(*index, "--faiss", "Flat", "--root", str(folder / "photos"), *SMALL)
    assert "--faiss is HNSW8, but the index has faiss Flat" in fails(*index, "--faiss", "HNSW8")
    assert "--root is ., but the index has the root" in fails(*index, "--root", ".")
    assert "'nowhere', which does not exist" in fails(*index, "--model", "nowhere")
    assert "come from different models" in fails(*index, *SMALL, "images.crop=32", "images.test_resize=32")
    assert "--milvus-index is HNSW, expected none in a folder" in fails(*index, "--milvus-index", "HNSW")
    Path("others").mkdir()
    Image.new("RGB", (32, 32), "red").save("others/red.png")
    synced = fails("sync", "--index", "kept", "--root", "others", "--device", "cpu")
    assert "12 images of the index, made for" in synced and "For other images make another index." in synced
    photo = next(Path("photos").iterdir())
    twice = ["--index", "kept", "--index", str(folder / "k*t")]
    assert len(set(_paths(succeeds("query", str(photo), *twice, "-k", "3", "--json")))) == 3


def test_a_folder_with_other_files_is_refused_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in (folder / "photos").iterdir())
    for to, said in (("photos", "is no index and holds other files"), (f"photos/{before[0]}", "is a file, expected")):
        assert said in fails("index", "photos", "--to", to, "--config-name", "nowhere")
    assert sorted(path.name for path in (folder / "photos").iterdir()) == before


def test_shards_that_are_too_small_to_be_trained_are_told_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Embedder, "embed", lambda *_, **__: pytest.fail("it has begun"))
    smallest = min(Counter(shard_number(path.name, 3) for path in Path("photos").iterdir()).values())
    assert smallest < 4 == 12 // 3
    said = fails("index", "photos", "--to", "small", "--shards", "3", "--faiss", "IVF4,Flat", "--device", "cpu", *SMALL)
    assert f"cannot be trained on a gallery of {smallest} row" in said and not list(Path("small").glob("shard_*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extractor: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("extractor: {name: irt, args: {}}", "has no 'transforms_predict', expected a config of prediction"),
        ("extractor: {name: irtt}\ntransforms_predict: {name: norm_resize_irt}", "Unknown extractor 'irtt': did you"),
        ("extractor: {name: irt}\ntransforms_predict: {name: norm_resize_ir}", "Unknown transforms 'norm_resize_ir'"),
        ("extractor: [1", "while parsing a flow sequence"),
    ],
)
def test_configs_that_build_no_model_are_told(folder: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    Path("mine.yaml").write_text(f"{text}\n")
    assert said in fails("index", "photos", "--to", "mine", "--config-name", "mine.yaml")
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        f'{{"a.jpg": [1{"0" * 400}]}}',
        '{"a.jpg": [1], "b.jpg": [1, 2]}',
        '{"a.jpg": ["text"]}',
        '{"a.jpg": {}}',
    ],
)
def test_predictions_of_another_form_are_told(folder: Path, content: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    Path("predictions.json").write_text(content)
    index = ["index", "photos", "--to", "predicted", "--predictions", "predictions.json", "--device", "cpu", *SMALL]
    assert "--predictions predictions.json cannot be read (" in fails(*index)


def test_a_part_of_the_predictions(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    names = sorted(path.name for path in Path("photos").iterdir())
    Path("predictions.json").write_text(json.dumps({name: [i + 1.0] * 192 for i, name in enumerate(names)}))
    for shard in ("0/2", "1/2"):
        to = f"predicted/shard_{shard[0]}_of_2"
        how = ["--predictions", "predictions.json", "--shard", shard, "--device", "cpu"]
        succeeds("index", "photos", "--to", to, *how, *SMALL)
    index = open_index("predicted")
    assert isinstance(index, ShardedIndex) and sorted(index.images.path) == names
    assert [len(shard) for shard in index.shards] == [sum(shard_number(n, 2) == i for n in names) for i in range(2)]
    assert np.array_equal(index._embeddings_of(names)[:, 0], np.arange(len(names)) + 1)


def test_moved_photos_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    random_index(folder / "before").save(folder / "moved")
    assert "does not exist, expected the folder of its images. If" in fails("sync", "--index", "moved")


def _paths(answer: str) -> list[str]:
    return [hit["path"] for hit in json.loads(answer)[0]["hits"]]


def test_the_folder_of_the_index_must_be_named():
    assert "--to" in fails("index", "photos", code=2)
