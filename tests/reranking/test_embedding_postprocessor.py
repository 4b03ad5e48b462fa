"""What a user is told who calls ``process`` himself."""

from __future__ import annotations

import pytest
import torch

from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.reranking import KReciprocalReranker, PostprocessorChain, QueryExpansion
from oml_vit_ext.retrieval import retrieve

ALL = [QueryExpansion(), KReciprocalReranker(), KReciprocalReranker(top_n=5), PostprocessorChain([QueryExpansion()])]


@pytest.mark.parametrize("postprocessor", ALL)
def test_errors_name_what_is_wrong(postprocessor):
    dataset, embeddings = labelled(frame("separate")), embeddings_of()
    rr = retrieve(embeddings, dataset, n_items=6)
    with pytest.raises(ValueError, match=r"embeddings is None, expected those of the data set, \(150, dim\)"):
        postprocessor.process(rr, dataset)
    with pytest.raises(ValueError, match="There are 149 embeddings for a dataset of 150 items"):
        postprocessor.process(rr, dataset, embeddings[1:])
    with pytest.raises(ValueError, match="NaN or infinity"):
        postprocessor.process(rr, dataset, torch.full_like(embeddings, torch.nan))
    with pytest.raises(ValueError, match=r"have \d+ queries, but the data set has 150"):
        postprocessor.process(rr, labelled(frame()), embeddings)


@pytest.mark.parametrize("postprocessor", ALL)
def test_the_results_given_are_left_as_they_are(postprocessor):
    dataset, embeddings = labelled(frame("separate")), embeddings_of()
    rr = retrieve(embeddings, dataset, n_items=6)
    before = rr.deepcopy()
    postprocessor.process(rr, dataset, embeddings)
    for a, b in zip([*rr.distances, *rr.retrieved_ids], [*before.distances, *before.retrieved_ids], strict=True):
        assert torch.equal(a, b)
