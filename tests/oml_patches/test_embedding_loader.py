"""Validation of our re-rankers gets stored embeddings alone; everybody else's loaders stay as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from oml.const import EMBEDDINGS_KEY
from oml.lightning.pipelines import train_postprocessor
from torch.utils.data import DataLoader, Dataset

from oml_vit_ext.oml_patches.embedding_loader import EmbeddingsDataset, load_embeddings_alone

EMBEDDINGS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
OURS = {"stir_reranker": object}


class Photos(Dataset[dict[str, Any]]):
    """A data set of OML as the loader sees it; to decode an image is an error."""

    index_key = "idx"

    def __init__(self) -> None:
        self.extra_data = {EMBEDDINGS_KEY: EMBEDDINGS}

    def __len__(self) -> int:
        return len(EMBEDDINGS)

    def __getitem__(self, item: int) -> dict[str, Any]:
        raise AssertionError(f"image {item} was decoded")


def _pipeline() -> tuple[Any, tuple]:
    photos = Photos()
    loaders = (DataLoader(photos, batch_size=1), DataLoader(photos, batch_size=2, num_workers=1), photos, "more")
    return SimpleNamespace(get_loaders_with_embeddings=lambda cfg: loaders, __name__="pipeline"), loaders


def test_our_rerankers_validate_on_stored_embeddings():
    pipeline, loaders = _pipeline()
    load_embeddings_alone(pipeline, OURS)
    train, val, *others = pipeline.get_loaders_with_embeddings({"postprocessor": {"name": "stir_reranker"}})
    assert train is loaders[0] and others == list(loaders[2:])
    batches = list(val)
    assert [batch["idx"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    torch.testing.assert_close(torch.cat([batch[EMBEDDINGS_KEY] for batch in batches]), EMBEDDINGS)
    assert set(batches[0]) == {"idx", EMBEDDINGS_KEY}


def test_other_runs_keep_their_loaders():
    pipeline, loaders = _pipeline()
    load_embeddings_alone(pipeline, OURS)
    for cfg in ({"postprocessor": {"name": "pairwise_reranker"}}, {"postprocessor": None}, {}):
        assert pipeline.get_loaders_with_embeddings(cfg) == loaders


def test_it_is_done_once():
    pipeline, _ = _pipeline()
    load_embeddings_alone(pipeline, OURS)
    once = pipeline.get_loaders_with_embeddings
    load_embeddings_alone(pipeline, OURS)
    assert pipeline.get_loaders_with_embeddings is once


def test_the_pipeline_of_oml_is_changed_when_it_is_imported():
    wrapped = train_postprocessor.get_loaders_with_embeddings
    assert wrapped.__wrapped__.__module__ == wrapped.__module__ and "cfg" in wrapped.__wrapped__.__annotations__


def test_an_item_is_an_index_and_an_embedding():
    items = EmbeddingsDataset(Photos())
    assert len(items) == 5 and items[3]["idx"] == 3
    assert torch.equal(items[3][EMBEDDINGS_KEY], EMBEDDINGS[3])
