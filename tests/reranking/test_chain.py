"""A chain does what its links do one after the other, with the embeddings as the link before left them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval import ConstantThresholding

from helpers.photos import small_dataset, small_model
from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.reranking import KReciprocalReranker, PostprocessorChain, QueryExpansion, STIRReranker
from oml_vit_ext.retrieval import retrieve
from oml_vit_ext.retrieval.search_space import search_space
from oml_vit_ext.retrieval.settings import Settings

UNIT = torch.nn.functional.normalize(embeddings_of())
EXPANSION = {"name": "query_expansion", "args": {"n": 3}}


def _lists(rr) -> list[list[int]]:
    return [ids.tolist() for ids in rr.retrieved_ids]


def test_the_links_follow_each_other_on_the_new_embeddings():
    dataset = labelled(frame("separate"))
    rr = retrieve(UNIT, dataset, n_items=10)
    chain = PostprocessorChain([QueryExpansion(3, database_side=True), KReciprocalReranker(5, 2)])
    between, space = QueryExpansion(3, database_side=True).process_in(search_space(UNIT, dataset, Settings()), rr)
    expected, _ = KReciprocalReranker(5, 2).process_in(space, between)
    found = chain.process(rr, dataset, UNIT)
    assert _lists(found) == _lists(expected)
    assert _lists(found) != _lists(KReciprocalReranker(5, 2).process(rr, dataset, UNIT))


def test_yaml_builds_links_of_ours_and_of_oml():
    cfg = {
        "name": "chain",
        "args": {"postprocessors": [EXPANSION, {"name": "constant_thresholding", "args": {"th": 0.9}}]},
    }
    chain = get_postprocessor_by_cfg(cfg)
    dataset = labelled(frame("separate"))
    rr = retrieve(UNIT, dataset, n_items=10)
    expected = ConstantThresholding(0.9).process(QueryExpansion(3).process(rr, dataset, UNIT))
    found = chain.process(rr=rr, dataset=dataset, embeddings=UNIT)
    assert _lists(found) == _lists(expected)
    assert 0 < sum(map(len, _lists(found))) < sum(map(len, _lists(rr)))


def test_expansion_then_stir(tmp_path: Path):
    dataset = small_dataset(tmp_path)
    torch.manual_seed(0)
    stir = STIRReranker(top_n=4, pairwise_model=small_model(), num_workers=0, batch_size=8)
    embeddings = torch.randn(len(dataset), 6, generator=torch.Generator().manual_seed(1))
    rr = retrieve(embeddings, dataset, n_items=6)
    chain = PostprocessorChain([QueryExpansion(2), stir])
    assert chain.model is stir.model and chain.top_n == 4
    expected = stir.process(QueryExpansion(2).process(rr, dataset, embeddings), dataset)
    assert _lists(chain.process(rr, dataset, embeddings)) == _lists(expected)


def test_chains_in_chains_hand_the_embeddings_on():
    dataset = labelled(frame("separate"))
    rr = retrieve(UNIT, dataset, n_items=10)
    flat = PostprocessorChain([QueryExpansion(3), QueryExpansion(2), KReciprocalReranker(5, 2)])
    nested = PostprocessorChain([PostprocessorChain([QueryExpansion(3), QueryExpansion(2)]), KReciprocalReranker(5, 2)])
    assert _lists(nested.process(rr, dataset, UNIT)) == _lists(flat.process(rr, dataset, UNIT))


def test_what_a_chain_asks_of_oml():
    chain = PostprocessorChain([EXPANSION, {"name": "k_reciprocal"}])
    assert chain.top_n == 3 and not hasattr(chain, "model") and not chain.independent
    assert PostprocessorChain([EXPANSION]).independent
    # OML's metric retrieves the whole gallery for a postprocessor without top_n, as these are.
    assert not hasattr(PostprocessorChain([EXPANSION, ConstantThresholding(1.0)]), "top_n")


def test_without_embeddings_only_the_links_that_need_none():
    dataset = labelled(frame("separate"))
    rr = retrieve(UNIT, dataset, n_items=10)
    cut = PostprocessorChain([ConstantThresholding(0.9)]).process(rr, dataset)
    assert _lists(cut) == _lists(ConstantThresholding(0.9).process(rr))
    with pytest.raises(ValueError, match=r"QueryExpansion: embeddings is None, expected those of the data set"):
        PostprocessorChain([EXPANSION]).process(rr, dataset)


class _Pairs(IRetrievalPostprocessor):
    def process(self, rr: Any, dataset: Any) -> Any:
        return rr


def test_an_index_has_no_images_for_links_by_pairs():
    dataset = labelled(frame("separate"))
    rr = retrieve(UNIT, dataset, n_items=10)
    with pytest.raises(ValueError, match=r"_Pairs does not compute with embeddings alone.*rerank_hits"):
        PostprocessorChain([EXPANSION, _Pairs()]).process_in(search_space(UNIT, dataset, Settings()), rr)


@pytest.mark.parametrize("links", [[], None, "query_expansion", [3], [{"args": {}}]])
def test_what_is_no_list_of_postprocessors_is_told(links: Any):
    with pytest.raises(ValueError, match="expected a"):
        PostprocessorChain(links)
