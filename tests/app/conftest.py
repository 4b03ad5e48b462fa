"""A folder of photos, two indexes of it by a tiny model, and a re-ranker."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from helpers import DEMO_DATA, TINY_PLAIN
from helpers.embedders import make_embedder
from oml_vit_ext.app import Catalog, SearchService
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRReranker, STIRSiamese
from oml_vit_ext.retrieval import SearchIndex


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, one of them with a name like HTML; one that is not in the index, and one beside the folder."""
    folder = tmp_path_factory.mktemp("app") / "photos"
    folder.mkdir()
    for i, file in enumerate(sorted((DEMO_DATA / "images/noto").glob("*.jpg"))[:20]):
        shutil.copy(file, folder / ("<b>x&y.jpg" if i == 3 else f"{i:02}.jpg"))
    shutil.copy(folder / "00.jpg", folder.parent / "secret.jpg")
    shutil.copy(folder / "00.jpg", folder / "not in the index.jpg")
    return folder


@pytest.fixture(scope="session")
def index(photos: Path) -> SearchIndex:
    names = sorted(file.name for file in photos.iterdir() if file.name != "not in the index.jpg")
    labels = ["<i>odd</i>" if name.startswith("<") else f"label {i // 4}" for i, name in enumerate(names)]
    made, _ = SearchIndex.build(pd.DataFrame({"path": names, "label": labels}), make_embedder(), root=photos)
    return made


@pytest.fixture(scope="session")
def service(index: SearchIndex) -> SearchService:
    torch.manual_seed(1)
    model = STIRSiamese(IRTExtractor(weights=None, **TINY_PLAIN), mlp_hidden_dims=[8]).eval()
    reranker = STIRReranker(
        5, model, num_workers=0, batch_size=16, fusion={"first_stage_weight": 0.25, "temperature": 2}
    )
    embedder = make_embedder()
    return SearchService(index, embedder, reranker, embedder.transform)


@pytest.fixture(scope="session")
def catalog(index: SearchIndex, service: SearchService) -> Catalog:
    return Catalog({"photos": service, "without a re-ranker": SearchService(index, make_embedder())})
