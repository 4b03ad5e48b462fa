"""Hits of one image in the order of a re-ranker, which sees the query and the hits' own parts of their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision.transforms as t
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.retrieval.retrieval_results import RetrievalResults
from PIL import Image

from helpers.mean_colour import paint
from helpers.photos import SIZE, small_model
from oml_vit_ext.reranking import STIRReranker
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits

TO_TENSOR = t.Compose([t.Resize((SIZE, SIZE)), t.ToTensor()])


class Reverse(IRetrievalPostprocessor):
    """The last first; remembers what it was given."""

    def process(self, rr: RetrievalResults, dataset) -> RetrievalResults:
        self.given, self.dataset = rr, dataset
        return RetrievalResults([rr.distances[0] * 10], [rr.retrieved_ids[0].flip(0)])


@pytest.fixture()
def hits(tmp_path: Path) -> list[Hit]:
    paint(tmp_path / "query.png", (255, 0, 0))
    two = Image.new("RGB", (20, 10), (0, 255, 0))
    two.paste((0, 0, 255), (5, 0, 15, 10))
    two.save(tmp_path / "two.png")
    paint(tmp_path / "one.png", (255, 255, 0))
    return [Hit("two.png", 0.1, "a", "5,0,15,10"), Hit("one.png", 0.2, "b", ""), Hit("two.png", 0.4, "c", "")]


def test_hits_get_the_order_and_the_distances_of_the_reranker(tmp_path: Path, hits: list[Hit]):
    found = rerank_hits(tmp_path / "query.png", hits, tmp_path, Reverse(), TO_TENSOR)
    assert [(hit.path, hit.label, hit.box) for hit in found] == [
        ("two.png", "c", ""),
        ("one.png", "b", ""),
        ("two.png", "a", "5,0,15,10"),
    ]
    assert [hit.distance for hit in found] == pytest.approx([1.0, 2.0, 4.0])


def test_the_reranker_sees_the_query_and_the_boxes_of_the_hits(tmp_path: Path, hits: list[Hit]):
    reranker = Reverse()
    rerank_hits(tmp_path / "query.png", hits, tmp_path, reranker, TO_TENSOR)
    dataset = reranker.dataset
    assert dataset.get_query_ids().tolist() == [0] and dataset.get_gallery_ids().tolist() == [1, 2, 3]
    colours = [dataset[i][dataset.input_tensors_key].mean(dim=(1, 2)) for i in range(4)]
    expected = [[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0.5, 0.5]]
    torch.testing.assert_close(torch.stack(colours), torch.tensor(expected), atol=0.05, rtol=0)
    assert reranker.given.retrieved_ids[0].tolist() == [0, 1, 2]


def test_our_reranker_orders_them_by_its_model(tmp_path: Path, hits: list[Hit]):
    model = small_model()

    def score(hit: Hit) -> float:
        image = Image.open(tmp_path / hit.path)
        image = image.crop((5, 0, 15, 10)) if hit.box else image
        pair = [TO_TENSOR(picture)[None] for picture in (Image.open(tmp_path / "query.png"), image)]
        with torch.no_grad():
            return model.predict(*pair).item()

    best_first = sorted(hits, key=score)
    worst_first = [hit._replace(distance=d) for hit, d in zip(reversed(best_first), (0.1, 0.2, 0.4), strict=True)]
    reranker = STIRReranker(top_n=3, pairwise_model=model, num_workers=0, batch_size=2)
    found = rerank_hits(tmp_path / "query.png", worst_first, tmp_path, reranker, TO_TENSOR)
    assert [hit.label for hit in found] == [hit.label for hit in best_first]


def test_one_hit_needs_no_reranker(tmp_path: Path, hits: list[Hit]):
    for few in (hits[:1], []):
        assert rerank_hits(tmp_path / "nowhere.png", few, tmp_path, None, None) == few  # type: ignore[arg-type]


def test_hits_that_are_gone_come_last(tmp_path: Path, hits: list[Hit]):
    (tmp_path / "broken.png").write_text("no image")
    more = [Hit("gone.png", 0.05, "d", ""), *hits, Hit("broken.png", 0.5, "e", "")]
    with pytest.warns(
        UserWarning, match=r"2 hits cannot .*: gone\.png \(missing\); broken\.png \(not an image\)\. Sync"
    ):
        found = rerank_hits(tmp_path / "query.png", more, tmp_path, Reverse(), TO_TENSOR)
    assert [hit.label for hit in found] == ["c", "b", "a", "d", "e"]
    assert [hit.distance for hit in found] == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0])
    with pytest.warns(UserWarning, match="1 hit cannot be compared"):
        assert rerank_hits(tmp_path / "query.png", more[:2], tmp_path, Reverse(), TO_TENSOR) == [more[1], more[0]]


def test_of_an_index_with_a_grid_the_part_is_compared(tmp_path: Path, hits: list[Hit]):
    reranker = Reverse()
    rerank_hits(tmp_path / "query.png", [hits[1], hits[2]._replace(crop="5,0,15,10")], tmp_path, reranker, TO_TENSOR)
    images = [reranker.dataset[i][reranker.dataset.input_tensors_key] for i in (1, 2)]
    torch.testing.assert_close(images[1].mean(dim=(1, 2)), torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0)
