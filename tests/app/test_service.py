"""Answers, against the index and the re-ranker that they come from."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.embedders import make_embedder
from oml_vit_ext.app import Answer, Options, SearchService
from oml_vit_ext.reranking import STIRReranker
from oml_vit_ext.retrieval import SearchIndex, rerank_hits


def _photo(photos: Path, name: str = "05.jpg") -> Image.Image:
    return Image.open(photos / name).convert("RGB")


def _same(found, expected) -> bool:
    return [hit.path for hit in found] == [hit.path for hit in expected] and np.allclose(
        [hit.distance for hit in found], [hit.distance for hit in expected], atol=1e-4
    )


def test_hits_are_those_of_the_index(service: SearchService, photos: Path):
    expected = service.index.search_images([photos / "05.jpg"], service.embedder, k=4)[0]
    answer = service.query(_photo(photos), Options(k=4))
    assert _same(answer.hits, expected) and answer.hits[0].path == "05.jpg" and answer.after is None
    assert list(answer.seconds) == ["embedding", "search"] and not answer.attention


def test_reranked_hits_are_those_of_the_reranker(service: SearchService, photos: Path):
    found = service.index.search_images([photos / "05.jpg"], service.embedder, k=6)[0]
    answer = service.query(_photo(photos), Options(k=4, rerank=6))
    fusion = {"first_stage_weight": 0.25, "temperature": 2}
    reranker = STIRReranker(6, service.reranker(6).model, num_workers=0, batch_size=16, fusion=fusion)
    expected = rerank_hits(photos / "05.jpg", found, service.index.root, reranker, service.embedder.transform)
    assert _same(answer.hits, expected[:4]) and _same(answer.before, found[:4]) and "re-ranking" in answer.seconds


def test_the_weight_of_the_first_stage(service: SearchService, photos: Path):
    assert service.first_stage_weight == 0.25
    by = {
        w: service.query(_photo(photos), Options(k=8, rerank=8, first_stage_weight=w)) for w in (None, 0.0, 0.25, 1.0)
    }
    assert _same(by[None].hits, by[0.25].hits) and not _same(by[0.25].hits, by[0.0].hits)
    assert [hit.path for hit in by[1.0].hits] == [hit.path for hit in by[1.0].before], "the first stage alone"
    assert _same(service.query(_photo(photos), Options(k=8, rerank=8)).hits, by[None].hits), "as configured again"


def test_a_budget_leaves_clear_queries_as_they_are(service: SearchService, photos: Path):
    index = service.index
    gaps = []
    for path in index.images.path:
        hits = [h for h in index.search_images([photos / path], service.embedder, k=3)[0] if h.path != path]
        gaps.append(hits[1].distance - hits[0].distance)
    assert service.margin(0.5) == pytest.approx(np.quantile(gaps, 0.5), abs=1e-4)
    assert service.margin(0) == 0 and service.margin(1) == np.inf
    answer = service.query(_photo(photos), Options(rerank=5, budget=0.0))
    assert answer.after is None and "a budget of 0%" in answer.note and "re-ranking" not in answer.seconds


def test_attention_of_query_and_hits(service: SearchService, photos: Path):
    answer = service.query(_photo(photos), Options(k=2, attention=True))
    assert [picture.size for picture in answer.attention] == [(32, 32)] * 3 and answer.attention_note == ""


def test_without_a_reranker_it_says_so(index: SearchIndex, photos: Path):
    plain = SearchService(index, make_embedder())
    assert plain.first_stage_weight is None and not plain.has_reranker
    answer = plain.query(_photo(photos), Options(rerank=5))
    assert answer.note.startswith("There is no re-ranker") and answer.to_dict()["reranked"] is False


def test_an_answer_as_json(service: SearchService, photos: Path):
    row = service.query(_photo(photos), Options(k=1)).to_dict()["hits"][0]
    assert row | {"distance": 0.0} == {
        "rank": 1,
        "path": "05.jpg",
        "distance": 0.0,
        "label": "label 1",
        "box": "",
        "crop": "",
    }
    assert row["distance"] == pytest.approx(0, abs=1e-3)


def test_many_at_once_get_what_each_asked_for(service: SearchService, photos: Path):
    names = [f"{i:02}.jpg" for i in range(5, 11)]
    alone = {name: service.query(_photo(photos, name), Options(k=3, rerank=2 + i)) for i, name in enumerate(names)}
    together: dict[str, Answer] = {}

    def ask(i: int, name: str) -> None:
        together[name] = service.query(_photo(photos, name), Options(k=3, rerank=2 + i))

    threads = [threading.Thread(target=ask, args=(i, name)) for i, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(_same(together[name].hits, alone[name].hits) for name in names)


def test_only_images_of_the_index_have_a_file(service: SearchService, photos: Path):
    assert service.file_of("05.jpg") == photos / "05.jpg"
    for path in ("../secret.jpg", str(photos.parent / "secret.jpg"), "not in the index.jpg", "./05.jpg", ""):
        assert service.file_of(path) is None, path
    assert service.file_of("05.jpg", "0,0,1,1") is None
    some = service.some_images(7, seed=3)
    assert len({entry["path"] for entry in some}) == 7 and service.some_images(7, seed=3) == some
    assert len(service.some_images(100, seed=0)) == 20


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"k": 0}, "k is 0"),
        ({"rerank": 1}, "rerank is 1"),
        ({"rerank": 101}, "rerank is 101"),
        ({"budget": 2}, "budget is 2"),
    ],
)
def test_options_out_of_range(wrong: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Options(**wrong)


def test_another_model_is_refused(index: SearchIndex):
    with pytest.raises(ValueError, match="the query"):
        SearchService(index, make_embedder(seed=7))


def test_search_params_that_do_not_go_with_the_index_are_told_at_once(service: SearchService):
    with pytest.raises(ValueError, match="search_params is 'nprobe=3', but index 'Flat' is exact"):
        SearchService(service.index, service.embedder, search_params="nprobe=3")
