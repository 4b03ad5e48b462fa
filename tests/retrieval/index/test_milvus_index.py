"""The same index in Milvus, for real on milvus-lite."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.embedders import make_embedder, paths_of
from oml_vit_ext.retrieval import Embedder, MilvusIndex, SearchIndex, list_images
from oml_vit_ext.retrieval.index import image_index


def _has_milvus() -> bool:
    try:
        import milvus_lite  # noqa: F401
        import pymilvus  # noqa: F401
    except ImportError:
        return False
    return True


needs_milvus = pytest.mark.skipif(not _has_milvus(), reason="needs pip install 'oml-vit-ext[milvus]'")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return make_embedder()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 36)).save(root / f"{i:02d}'.png")
    return root


@needs_milvus
def test_it_answers_like_the_index_on_disk_and_survives_the_process(
    photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, photos, embedder.fingerprint, index="HNSW", index_params={"M": 8})
    report = milvus.add(photos, embedder)
    assert report.added == len(milvus) == 10
    paths = [photos / path for path in list_images(photos, photos).path]
    exact, _ = SearchIndex.build(photos, embedder)
    expected = exact.search_images(paths, embedder, k=4)
    for _ in range(2):
        got = milvus.search_images(paths, embedder, k=4, search_params="ef=32")
        assert paths_of(got) == paths_of(expected)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose([h.distance for h in ours], [h.distance for h in theirs], atol=1e-3)
        assert milvus.add(photos, embedder).unchanged == 10
        milvus.close()
        milvus = MilvusIndex.open(uri)
    with pytest.raises(ValueError, match="different models"):
        milvus.search_images(paths[:1], make_embedder(1))
    with pytest.raises(ValueError, match="10 dimensions"):
        milvus.search(np.ones((1, 10), np.float32))
    with pytest.raises(ValueError, match="at most 16384"):
        milvus.search(np.ones((1, 192), np.float32), k=20_000)
    with pytest.raises(ValueError, match="'ef' are not understood"):
        milvus.search(np.ones((1, 192), np.float32), search_params="ef")
    assert len(milvus.search(np.ones((1, 192), np.float32), k=100)[0]) == 10
    milvus.close()


@needs_milvus
def test_a_changed_image_replaces_the_old_one_and_labels_and_boxes_come_back(
    photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, tmp_path, embedder.fingerprint)
    Image.new("RGB", (30, 30), (0, 255, 0)).save(tmp_path / "a.png")
    df = pd.DataFrame({"path": ["a.png"], "label": [3], "x_1": [0], "y_1": [0], "x_2": [9], "y_2": [8]})
    milvus.add(df, embedder)
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "a.png")
    assert milvus.add(df, embedder).changed == 1
    assert len(milvus) == 1
    (row,) = milvus.search_images([tmp_path / "a.png"], embedder)
    assert (row[0].path, row[0].label, row[0].box) == ("a.png", "3", "0,0,9,8")
    assert row[0].distance < 1e-2
    milvus.close()


@needs_milvus
def test_a_half_finished_index_says_so(
    photos: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, photos, embedder.fingerprint)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(image_index, "_EMBEDDED_AT_ONCE", 4)
        embed, parts = Embedder.embed, iter(range(2))

        def interrupted(self, *args, **settings):
            if next(parts, None) is None:
                raise KeyboardInterrupt
            return embed(self, *args, **settings)

        patch.setattr(Embedder, "embed", interrupted)
        milvus.add(photos, embedder)
    milvus.close()
    with pytest.warns(UserWarning, match="'images' is half-finished.* It holds 8 images so far"):
        milvus = MilvusIndex.open(uri, root=tmp_path)
    milvus.root = photos
    with pytest.raises(ValueError, match="different models"):
        milvus.add(photos, make_embedder(1))
    assert milvus.add(photos, embedder).added == 2
    milvus.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        milvus = MilvusIndex.open(uri)
    assert len(milvus) == 10 and milvus.root == photos  # the place that is stored stays
    milvus.close()


@needs_milvus
def test_wrong_names_and_places_are_told(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    uri = str(tmp_path / "index.db")
    MilvusIndex.create(uri, photos, embedder.fingerprint, collection="shelves", config={"extractor": {}}).close()
    with pytest.raises(FileExistsError, match="has a collection 'shelves' already"):
        MilvusIndex.create(uri, photos, embedder.fingerprint, collection="shelves")
    with pytest.raises(FileNotFoundError, match=r"Unknown collection 'shelf'.*did you mean 'shelves'"):
        MilvusIndex.open(uri, collection="shelf")
    with pytest.raises(FileNotFoundError, match="no milvus-lite file"):
        MilvusIndex.open(str(tmp_path / "other.db"))
    with pytest.raises(ValueError, match=r"expected a file name ending in '\.db' or a URL"):
        MilvusIndex.create("index", photos, embedder.fingerprint)
    again = MilvusIndex.open(uri, collection="shelves")
    assert again.config == {"extractor": {}} and again.root == photos and len(again) == 0
    again.close()


def test_without_the_extra_the_error_names_it(
    photos: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install 'oml-vit-ext\[milvus\]'"):
        MilvusIndex.create(str(tmp_path / "index.db"), photos, embedder.fingerprint)
