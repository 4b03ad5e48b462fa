"""Several writers of one index: each is refused while another one writes, and nothing that was saved is lost."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.random_index import random_index, random_rows
from oml_vit_ext.retrieval import SearchIndex

N_WRITERS, EACH = 3, 5
REFUSED = ("is being written by another process", "has been written by another process")


def keep_adding(folder: Path, first: int) -> None:
    """One image after the other, each time on what the others have left."""
    for number in range(first, first + EACH):
        while True:
            try:
                index = SearchIndex.load(folder)
                frame = pd.DataFrame({"path": [f"{number:06d}.png"]})
                index.add_embeddings(frame, random_rows(np.array([number])), index.fingerprint)
                index.save()
                break
            except RuntimeError as error:
                assert any(text in str(error) for text in REFUSED), error


@pytest.mark.parametrize("factory", ["Flat", "HNSW8"])
@pytest.mark.parametrize(
    "start",
    [
        threading.Thread,
        pytest.param(
            multiprocessing.get_context("fork").Process if hasattr(os, "fork") else None,
            marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork"),
        ),
    ],
)
def test_all_that_they_add_is_there(tmp_path: Path, start: Callable[..., Any], factory: str):
    random_index(tmp_path, factory, 20).save(tmp_path / "index")
    writers = [start(target=keep_adding, args=(tmp_path / "index", 1_000 * (i + 1))) for i in range(N_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index = SearchIndex.load(tmp_path / "index")
    expected = [*range(20), *(1_000 * (i + 1) + k for i in range(N_WRITERS) for k in range(EACH))]
    numbers = index.images.path.str[:6].astype(int).to_numpy()
    assert sorted(numbers) == expected
    np.testing.assert_array_equal(index._table.rows().block(0, len(index)), random_rows(numbers))
    assert [hits[0].path for hits in index.search(random_rows(np.array(expected)), 1)] == [
        f"{number:06d}.png" for number in expected
    ]
