"""Indexes by their names, each model loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from helpers.trainings import IRT, RESIZE
from oml_vit_ext.app import Catalog, Options
from oml_vit_ext.app import catalog as catalog_module
from oml_vit_ext.retrieval import Embedder, MilvusIndex, SearchIndex, ShardedIndex


@pytest.fixture(scope="module")
def folders(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two indexes of one model that can be built again from a config."""
    import torch

    folder = tmp_path_factory.mktemp("indexes")
    torch.manual_seed(0)
    extractor = Embedder.from_config(IRT, RESIZE, device="cpu").extractor
    torch.save({f"backbone.{k}": v for k, v in extractor.backbone.state_dict().items()}, folder / "weights.pth")
    config = {"name": "irt", "args": {**IRT["args"], "weights": str(folder / "weights.pth")}}
    embedder = Embedder.from_config(config, RESIZE, device="cpu")
    for name in ("one", "two"):
        made, _ = SearchIndex.build(photos, embedder)
        made.save(folder / name)
    return [folder / "one", folder / "two"]


def test_indexes_of_one_model_share_it(folders: list[Path], photos: Path):
    catalog = Catalog.load(folders, device="cpu")
    assert list(catalog.services) == ["one", "two"] and catalog[""] is catalog["one"]
    assert catalog["one"].embedder is catalog["two"].embedder
    answer = catalog["two"].query(Image.open(photos / "05.jpg"), Options(k=1))
    assert answer.hits[0].path == "05.jpg"
    with pytest.raises(KeyError, match=r"Unknown index 'onne': did you mean 'one'\?"):
        catalog["onne"]


def test_a_rerankers_run(folders: list[Path], reranker_run: Path, photos: Path):
    catalog = Catalog.load([folders[0], folders[0]], reranker=reranker_run, device="cpu")
    assert list(catalog.services) == ["one", str(folders[0])], "two of one name"
    answer = catalog[""].query(Image.open(photos / "05.jpg"), Options(rerank=5))
    assert answer.after is not None and catalog[""].first_stage_weight == 0


def test_shards_and_milvus_answer_as_the_folder_does(folders: list[Path], photos: Path, tmp_path: Path):
    pytest.importorskip("milvus_lite", reason="needs pip install 'oml-vit-ext[milvus]'")
    one = SearchIndex.load(folders[0])
    shards = ShardedIndex.create(photos, one.fingerprint, 3, config=one.config)
    milvus = MilvusIndex.create(str(tmp_path / "kept.db"), photos, one.fingerprint, config=one.config)
    for index in (shards, milvus):
        index.add_embeddings(one.images, one.embeddings, one.fingerprint)
    shards.save(tmp_path / "shards")
    milvus.close()
    catalog = Catalog.load([folders[0], tmp_path / "shards", str(tmp_path / "kept.db")], device="cpu")
    assert list(catalog.services) == ["one", "shards", "kept.db"]
    image, options = Image.open(photos / "05.jpg"), Options(k=6, budget=0.5)
    expected = catalog["one"].query(image, options)
    for name in ("shards", "kept.db"):
        service = catalog[name]
        answer = service.query(image, options)
        assert [hit.path for hit in answer.hits] == [hit.path for hit in expected.hits]
        assert service.file_of("05.jpg") == photos / "05.jpg" and service.file_of("none.jpg") is None
        assert {entry["path"] for entry in service.some_images(21, seed=0)} == set(one.images.path)
        assert service.margin(0.5) == pytest.approx(catalog["one"].margin(0.5), abs=1e-4)
        service.index.close()


def test_a_server_is_named_without_its_user():
    assert catalog_module._name("https://user:secret@host:19530") == "host:19530"
    assert catalog_module._name("photos/kept.db") == "kept.db"


def test_no_index_at_all(tmp_path: Path):
    with pytest.raises(ValueError, match="There are no indexes"):
        Catalog({})
    with pytest.raises(FileNotFoundError, match="is not an index"):
        Catalog.load([tmp_path / "none"])
