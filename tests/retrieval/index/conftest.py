"""Twelve pictures, a model, and indexes of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.embedders import make_embedder
from helpers.milvus import needs_milvus
from oml_vit_ext.retrieval import Embedder, ImageIndex, MilvusIndex, SearchIndex


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return make_embedder()


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    """Twelve pictures in two folders."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / f"shelf {i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 36)).save(path)
    return tmp_path / "photos"


@pytest.fixture()
def kept(photos: Path, embedder: Embedder, tmp_path: Path) -> Path:
    """A saved index of the pictures."""
    index, _ = SearchIndex.build(photos, embedder)
    index.save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(params=["Flat", "HNSW8", pytest.param("Milvus", marks=needs_milvus)])
def index(request: pytest.FixtureRequest, photos: Path, embedder: Embedder, tmp_path: Path) -> Iterator[ImageIndex]:
    """An index of the twelve pictures."""
    if request.param == "Milvus":
        milvus = MilvusIndex.create(str(tmp_path / "index.db"), photos, embedder.fingerprint)
        milvus.add(photos, embedder)
        yield milvus
        milvus.close()
    else:
        yield SearchIndex.build(photos, embedder, index=request.param)[0]


@pytest.fixture()
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are embedded from now on."""
    names: list[str] = []
    embed = Embedder.embed
    monkeypatch.setattr(
        Embedder,
        "embed",
        lambda self, paths, *a, **k: names.extend(p.name for p in paths) or embed(self, paths, *a, **k),
    )
    return names
