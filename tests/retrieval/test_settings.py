"""The settings of a search are checked once, for every way in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.embedders import make_embedder
from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.retrieval import SearchIndex, faiss_search, retrieve
from oml_vit_ext.retrieval.settings import Settings


@pytest.mark.parametrize("memory_mb", [0, -1.0, float("nan"), float("inf"), True, "256", None])
def test_memory_is_positive_for_every_way_in(memory_mb: Any, tmp_path) -> None:
    index = SearchIndex(tmp_path, make_embedder().fingerprint)
    for search in (
        lambda: retrieve(embeddings_of(), labelled(frame()), memory_mb=memory_mb),
        lambda: faiss_search(memory_mb=memory_mb),
        lambda: index.search(np.ones((1, 192), np.float32), memory_mb=memory_mb),
    ):
        with pytest.raises(ValueError, match=f"memory_mb is {memory_mb!r}, expected a.* number"):
            search()


def test_an_index_and_its_settings_are_text() -> None:
    for wrong in ({"index": None}, {"index": 7}, {"search_params": None}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"{name} is {value}, expected text"):
            Settings(**wrong)
