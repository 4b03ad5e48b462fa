"""The space of a data set searches as ``retrieve`` does; new embeddings take the place of the old."""

from __future__ import annotations

import pytest
import torch

from helpers.toy_retrieval import embeddings_of, frame, labelled, sequences
from oml_vit_ext.retrieval import retrieve
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.search_space import search_space
from oml_vit_ext.retrieval.settings import Settings


@pytest.mark.parametrize("with_sequences", [False, True])
@pytest.mark.parametrize("split", ["all", "separate", "overlapping"])
def test_it_searches_as_retrieve_does(split: str, with_sequences: bool):
    dataset = labelled(frame(split))
    if with_sequences:
        dataset.extra_data["sequence"] = sequences()
    expected = retrieve(embeddings_of(), dataset, n_items=6)
    distances, ids = search_space(embeddings_of(), dataset, Settings()).search(6)
    assert [i.tolist() for i in ids] == [i.tolist() for i in expected.retrieved_ids]
    torch.testing.assert_close(distances, list(expected.distances))


def test_new_embeddings_of_queries_and_gallery():
    dataset = labelled(frame("separate"))
    space = search_space(embeddings_of(), dataset, Settings())
    space.kept["of the old gallery"] = 1
    queries = space.queries.block(0, len(space.queries))
    _, ids = space.with_gallery(Rows(queries)).search(1)
    assert [i.tolist() for i in ids] == [[q] for q in range(len(queries))]
    assert not space.with_gallery(Rows(queries)).kept and space.with_queries(Rows(queries)).kept
    gallery = space.gallery.block(0, len(queries))
    _, ids = space.with_queries(Rows(gallery)).search(1)
    assert [i.tolist() for i in ids] == [[q] for q in range(len(queries))]
