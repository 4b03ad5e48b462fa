"""Several indexes find what one index of all their images finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.embedders import paths_of
from helpers.random_index import add_numbers, random_index, random_rows
from oml_vit_ext.reranking import KReciprocalReranker, PostprocessorChain, QueryExpansion
from oml_vit_ext.retrieval import Embedder, SearchIndex, ShardedIndex, list_images, search_shards

POSTPROCESSORS = [
    QueryExpansion(3),
    QueryExpansion(3, database_side=True),
    KReciprocalReranker(4, 2, top_n=15),
    KReciprocalReranker(4, 2),
    PostprocessorChain([QueryExpansion(3), KReciprocalReranker(4, 2)]),
]


def shards_of(root: Path, n: int, factory: str = "Flat") -> list[SearchIndex]:
    """Three of very different sizes, the first with fewer images than are asked for."""
    shards = [random_index(root, factory, n=0) for _ in range(3)]
    for shard, numbers in zip(shards, np.split(np.random.default_rng(0).permutation(n), [2, n // 2]), strict=True):
        add_numbers(shard, numbers)
    return shards


def test_they_find_what_one_index_finds(photos: Path, kept: Path, embedder: Embedder) -> None:
    images = list_images(photos, photos)
    shards = [SearchIndex.build(images[i::3], embedder, root=photos)[0] for i in range(3)]
    x = embedder.embed_all([photos / path for path in images.path])
    assert paths_of(search_shards(shards, x, 5)) == paths_of(SearchIndex.load(kept).search(x, 5))


@pytest.mark.parametrize("factory", ["Flat", "HNSW32"])
@pytest.mark.parametrize("postprocessor", POSTPROCESSORS)
def test_a_postprocessor_sees_them_as_one_gallery(tmp_path: Path, postprocessor, factory: str) -> None:
    queries = random_rows(np.arange(500, 504))
    whole = random_index(tmp_path, n=60)
    expected = whole.search(queries, 8, postprocessor=postprocessor)
    assert paths_of(expected) != paths_of(whole.search(queries, 8))
    params = "" if factory == "Flat" else "efSearch=200"
    shards = shards_of(tmp_path, 60, factory)
    found = search_shards(shards, queries, 8, postprocessor=postprocessor, search_params=params)
    assert paths_of(found) == paths_of(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose([h.distance for h in ours], [h.distance for h in theirs], rtol=1e-4)
    as_one = ShardedIndex(shards).search(queries, 8, postprocessor=postprocessor, search_params=params)
    assert as_one == found


def test_many_queries_in_little_memory_find_the_same(tmp_path: Path) -> None:
    queries, shards = random_rows(np.arange(500, 540)), shards_of(tmp_path, 60)
    for postprocessor in (QueryExpansion(3, database_side=True), KReciprocalReranker(4, 2, top_n=15)):
        expected = search_shards(shards, queries, 8, postprocessor=postprocessor)
        # Three queries of 15 candidates at once.
        found = search_shards(shards, queries, 8, postprocessor=postprocessor, memory_mb=0.003)
        assert paths_of(found) == paths_of(expected)


def test_parts_of_a_picture_count_as_one_image(photos: Path, embedder: Embedder) -> None:
    """Also where one shard has a grid and another has none."""
    images = list_images(photos, photos)
    whole, _ = SearchIndex.build(images, embedder, root=photos, grid=2)
    shards = [SearchIndex.build(images[i::2], embedder, root=photos, grid=2)[0] for i in range(2)]
    x = embedder.embed_all([photos / path for path in images.path[:3]])
    expansion = QueryExpansion(2)
    found = search_shards(shards, x, 7, postprocessor=expansion)
    assert [(h.path, h.crop) for h in found[0]] == [
        (h.path, h.crop) for h in whole.search(x, 7, postprocessor=expansion)[0]
    ]
    plain, _ = SearchIndex.build(images[1::2], embedder, root=photos)
    for hits in search_shards([shards[0], plain], x, 12, postprocessor=expansion):
        assert len({h.path for h in hits}) == len(hits) == 12
        assert {h.path for h in hits if h.crop} <= set(shards[0].images.path)


def test_first_dimensions_are_searched_in_each(tmp_path: Path) -> None:
    queries, shards = random_rows(np.arange(500, 504)), shards_of(tmp_path, 60)
    whole = random_index(tmp_path, n=60)
    found = search_shards(shards, queries, 5, first_dims=4, shortlist=60)
    assert paths_of(found) == paths_of(whole.search(queries, 5)), "a shortlist of everything finds everything"
    short = search_shards(shards, queries, 5, first_dims=1, shortlist=5)
    assert paths_of(short) != paths_of(found)
    with pytest.raises(ValueError, match="first_dims is 2, expected None beside a postprocessor"):
        search_shards(shards, queries, first_dims=2, postprocessor=QueryExpansion(3))


def test_what_does_not_go_together_is_told(tmp_path: Path) -> None:
    shards, queries = shards_of(tmp_path, 20), random_rows(np.arange(2))
    with pytest.raises(ValueError, match="shards is empty, expected at least one index"):
        search_shards([], queries)
    with pytest.raises(ValueError, match="The index is empty"):
        search_shards([*shards, random_index(tmp_path, n=0)], queries, postprocessor=QueryExpansion(3))
    with pytest.raises(ValueError, match="k is 0, expected a whole number of at least 1"):
        search_shards(shards, queries, 0, postprocessor=QueryExpansion(3))
    with pytest.raises(ValueError, match="search_params is 'nprobe=3', but index 'Flat' is exact"):
        search_shards(shards, queries, postprocessor=QueryExpansion(3), search_params="nprobe=3")


@pytest.mark.parametrize("postprocessor", [None, QueryExpansion(2)])
def test_hits_of_indexes_with_roots_of_their_own(tmp_path: Path, postprocessor: QueryExpansion | None) -> None:
    shards = []
    for name, numbers in (("first", range(10)), ("second", range(10, 20))):
        (tmp_path / name).mkdir()
        shards.append(random_index(tmp_path / name, n=0))
        add_numbers(shards[-1], np.array(numbers))
    [hits] = search_shards(shards, random_rows([13]), 20, postprocessor=postprocessor)
    found = {tmp_path / "first" / hit.path for hit in hits}
    assert found == {tmp_path / ("first" if i < 10 else "second") / f"{i:06d}.png" for i in range(20)}
    assert hits[0].path == str(tmp_path / "second/000013.png") and "000003.png" in {hit.path for hit in hits}
