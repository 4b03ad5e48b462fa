"""An index that is kept: what it finds and what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval import ConstantThresholding
from PIL import Image
from torch import nn

from helpers import TINY_PLAIN
from helpers.embedders import make_embedder, paths_of
from helpers.random_index import add_random, random_index, random_rows
from helpers.toy_retrieval import labelled
from oml_vit_ext.reranking import KReciprocalReranker, PostprocessorChain, QueryExpansion
from oml_vit_ext.retrieval import Embedder, SearchIndex, list_images, retrieve

TRANSFORMS = {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}}


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_it_finds_what_a_plain_comparison_finds(photos: Path, kept: Path, embedder: Embedder) -> None:
    index = SearchIndex.load(kept)
    names = [f"shelf {i % 2}/{i:02d}.png" for i in range(12)]
    x = embedder.embed_all([photos / name for name in names])
    hits = index.search_images([photos / name for name in names], embedder, k=5)
    for query, row in enumerate(hits):
        distances = np.linalg.norm(x - x[query], axis=1)
        assert [hit.path for hit in row] == [names[i] for i in np.argsort(distances)[:5]]
        np.testing.assert_allclose([hit.distance for hit in row], np.sort(distances)[:5], atol=1e-5)
        assert row[0].distance < 1e-5  # itself
    assert len(index.search(x[0], k=100)[0]) == 12


def test_dataframes_with_boxes_and_labels(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    df = pd.DataFrame(
        {
            "path": ["shelf 0/00.png", "shelf 0/00.png", "shelf 1/01.png"],
            "label": [7, 8, 9],
            "x_1": [0, 10, np.nan],
            "y_1": [0, 10, np.nan],
            "x_2": [20, 40, np.nan],
            "y_2": [20, 30, np.nan],
        }
    )
    index, report = SearchIndex.build(df, embedder, root=photos)
    assert report.added == 3
    index.save(tmp_path / "boxes")
    index = SearchIndex.load(tmp_path / "boxes")
    Image.open(photos / "shelf 0/00.png").crop((10, 10, 40, 30)).save(tmp_path / "crop.png")
    (row,) = index.search_images([tmp_path / "crop.png"], embedder)
    assert (row[0].path, row[0].label, row[0].box) == ("shelf 0/00.png", "8", "10,10,40,30")
    assert row[0].distance < 1e-3
    assert sorted(hit.box for hit in row)[0] == ""
    assert index.add(df, embedder).unchanged == 3


def test_add_embeds_only_what_is_new_or_changed(
    photos: Path, kept: Path, embedder: Embedder, embedded: list[str]
) -> None:
    index = SearchIndex.load(kept)
    before = files_in(kept)
    shutil.copy(photos / "shelf 0/00.png", photos / "new.png")
    Image.new("RGB", (30, 30), (255, 0, 0)).save(photos / "shelf 1/03.png")
    report = index.add(photos, embedder)
    assert sorted(embedded) == ["03.png", "new.png"]
    assert (report.added, report.changed, report.unchanged, report.broken) == (1, 1, 11, [])
    index.save()
    assert index.add(photos, embedder).unchanged == 13

    index = SearchIndex.load(kept)
    assert len(index) == 13
    rows = index.search(embedder.embed_all([photos / "shelf 1/03.png", photos / "new.png"]), k=2)
    assert rows[0][0].path == "shelf 1/03.png" and rows[0][0].distance < 1e-5
    assert {hit.path for hit in rows[1]} == {"new.png", "shelf 0/00.png"}
    assert len(files_in(kept)) == len(before) + 2  # the new part; the rewritten one replaced the old


def test_broken_images_are_listed_and_left_out(photos: Path, embedder: Embedder) -> None:
    (photos / "text.jpg").write_text("not an image")
    (photos / "cut.png").write_bytes((photos / "shelf 0/00.png").read_bytes()[:60])
    (photos / "empty.jpeg").touch()
    df = pd.DataFrame({"path": [*list_images(photos, photos).path, "gone.png"]})
    index, report = SearchIndex.build(df, embedder, root=photos)
    assert len(index) == report.added == 12
    assert sorted(path for path, _ in report.broken) == ["cut.png", "empty.jpeg", "gone.png", "text.jpg"]
    assert "broken: text.jpg: not an image" in str(report)
    assert "12 added" in str(report)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "different models: the weights of the index .* have the hash"),
        ({"pooling": "avg"}, "one picture gets two embeddings"),
        ({"crop": 24}, "the weights agree, but the transforms are"),
        ({"arch": "vit_small_patch16_224"}, "the index has embeddings of 192 dimensions, the query of 384"),
    ],
)
def test_a_query_from_another_model_is_refused(photos: Path, kept: Path, other: dict, message: str) -> None:
    another = make_embedder(**other)
    index = SearchIndex.load(kept)
    with pytest.raises(ValueError, match=message):
        index.search_images([photos / "shelf 0/00.png"], another)
    with pytest.raises(ValueError, match="different models"):
        index.add(photos, another)
    assert len(index) == 12


def test_embeddings_of_another_width_or_without_meaning_are_refused(kept: Path) -> None:
    index = SearchIndex.load(kept)
    with pytest.raises(ValueError, match="embeddings have 10 dimensions, but those of the index have 192"):
        index.search(np.ones((1, 10), np.float32))
    with pytest.raises(ValueError, match="NaN"):
        index.search(np.full((1, 192), np.nan, np.float32))
    with pytest.raises(ValueError, match="zeros"):
        index.search(np.zeros((1, 192), np.float32))
    with pytest.raises(ValueError, match="k is 0"):
        index.search(np.ones((1, 192), np.float32), k=0)


def test_the_stored_config_builds_the_model_again(photos: Path, tmp_path: Path, in_tmp_path: Path) -> None:
    torch.save(make_embedder(3).extractor.state_dict(), "weights.pth")
    extractor = {"name": "irt", "args": {"weights": "weights.pth", **TINY_PLAIN}}
    index, _ = SearchIndex.build(photos, Embedder.from_config(extractor, TRANSFORMS, device="cpu"))
    index.save("index")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # weights were given by a relative path
    index = SearchIndex.load("../index")
    (row,) = index.search_images([photos / "shelf 1/05.png"], index.embedder(device="cpu"), k=1)
    assert row[0].path == "shelf 1/05.png"
    torch.save(make_embedder(4).extractor.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="what its stored config builds today come from different models"):
        index.embedder(device="cpu")


def test_embeddings_made_elsewhere_can_be_added(photos: Path, embedder: Embedder, kept: Path) -> None:
    images = list_images(photos, photos)
    x = embedder.embed_all([photos / path for path in images.path])
    index = SearchIndex(photos, embedder.fingerprint)
    assert index.add_embeddings(images, torch.from_numpy(x).half(), embedder.fingerprint).added == 12
    assert paths_of(index.search(x, 3)) == paths_of(SearchIndex.load(kept).search(x, 3))
    with pytest.raises(ValueError, match="11 embeddings are given for 12 images"):
        index.add_embeddings(images, x[1:], embedder.fingerprint)
    with pytest.raises(ValueError, match="different models"):
        index.add_embeddings(images, x, make_embedder(1).fingerprint)


def test_memory_mapped_parts_answer_alike(photos: Path, kept: Path, embedder: Embedder) -> None:
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "green.png")
    index = SearchIndex.load(kept)
    index.add(photos, embedder)
    index.save()
    x = embedder.embed_all([photos / "green.png", photos / "shelf 0/02.png"])
    mapped = SearchIndex.load(kept, mmap=True)
    assert all(isinstance(part, np.memmap) for part in mapped._table._parts) and len(mapped._table._parts) == 2
    assert paths_of(mapped.search(x, 13)) == paths_of(index.search(x, 13))


def test_wrong_sources_are_told(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, root, message in [
        (tmp_path / "empty", None, "holds no image"),
        (tmp_path / "nowhere", None, "does not exist"),
        (photos, tmp_path / "empty", "lies outside the root"),
        (pd.DataFrame({"path": ["../x.png"]}), photos, "lies outside the root"),
        (pd.DataFrame({"path": ["/etc/x.png"]}), photos, "lies outside the root"),
        (pd.DataFrame({"file": ["x.png"]}), photos, r"columns \['file'\], expected 'path'"),
        (pd.DataFrame({"path": ["x.png"], "x_1": [0]}), photos, "of a bounding box, expected none or"),
        (pd.DataFrame({"path": ["a.png", "./a.png"]}), photos, "listed more than once"),
        (pd.DataFrame({"path": []}), photos, "has no rows"),
        (pd.DataFrame({"path": ["a.png"]}), None, "needs root"),
        (pd.DataFrame({"path": ["a.png", "b.png"]}), photos, "None of the 2 images can be used.*a.png"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            SearchIndex.build(source, embedder, root=root)
    with pytest.raises(FileNotFoundError, match="is not an index: there is no such folder"):
        SearchIndex.load(tmp_path / "nowhere")


def test_a_model_that_gives_nan_for_an_image_does_not_stop_the_others(photos: Path) -> None:
    class SometimesNan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            means = x.mean(dim=(2, 3)) + 5
            return torch.where(means[:, :1] > means.mean(), means, torch.nan)

    transform = get_transforms_by_cfg(TRANSFORMS)
    embedder = Embedder(SometimesNan(), transform, device="cpu")
    with pytest.raises(ValueError, match="The extractor SometimesNan gives NaN or infinity for a test picture"):
        embedder.fingerprint  # noqa: B018  (an index of it would not know it again)
    Image.new("RGB", (30, 30), (255, 255, 255)).save(photos / "white.png")
    batches = list(embedder.embed(sorted(photos.rglob("*.png"))))
    assert sum(len(d.positions) for d in batches) > 0
    assert {reason for d in batches for _, reason in d.broken} == {"its embedding is not finite, or all zeros"}


def test_names_that_tables_trip_over(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    odd = ["NA.png", 'quote".png', "comma,.png", "new\nline.png", "ünï.png", "#1,2.png"]
    for i, name in enumerate(odd):
        Image.new("RGB", (30, 30), (20 * i, 0, 0)).save(photos / name)
    os.link(photos / "NA.png", os.fsencode(photos) + b"/\xff\xfe.png")
    index, report = SearchIndex.build(photos, embedder)
    assert report.added == 12 + len(odd) + 1
    index.save(tmp_path / "index")
    loaded = SearchIndex.load(tmp_path / "index")
    assert loaded.images.path.tolist() == index.images.path.tolist()
    assert set(odd) < set(loaded.images.path)
    assert loaded.add(photos, embedder).unchanged == 19


def test_links_are_followed_once(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(photos)
    (photos / "back").symlink_to(root)
    assert len(list_images(root, root)) == 12


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF2,Flat"])
def test_asking_for_a_billion_hits_takes_no_memory_for_them(tmp_path: Path, factory: str) -> None:
    index = random_index(tmp_path, factory)
    (hits,) = index.search(random_rows(np.arange(1)), k=10**9, search_params="nprobe=2" if "IVF" in factory else "")
    assert 30 < len(hits) <= 40 and hits[0].path == "000000.png"  # HNSW does not reach every image


POSTPROCESSORS = [
    QueryExpansion(3),
    QueryExpansion(3, database_side=True),
    KReciprocalReranker(4, 2, top_n=15),
    KReciprocalReranker(4, 2),
    PostprocessorChain([QueryExpansion(3), KReciprocalReranker(4, 2)]),
]


def _positions(hits: list) -> list[int]:
    return [int(hit.path[:6]) for hit in hits]


@pytest.mark.parametrize("postprocessor", POSTPROCESSORS)
def test_a_postprocessor_gives_each_query_what_process_gives_it_alone(tmp_path: Path, postprocessor):
    """Whatever other queries come with it: the gallery is the index, the query is not in it."""
    index = random_index(tmp_path, n=40)
    queries = random_rows(np.arange(500, 504))
    found = index.search(queries, 6, postprocessor=postprocessor)
    for query, hits in zip(queries, found, strict=True):
        df = pd.DataFrame({"label": 0, "is_query": [True] + [False] * 40})
        dataset = labelled(df.assign(is_gallery=~df.is_query))
        embeddings = np.concatenate([query[None], random_rows(np.arange(40))])
        rr = retrieve(embeddings, dataset, n_items=max(6, postprocessor.top_n))
        alone = postprocessor.process(rr, dataset, embeddings=embeddings)
        assert _positions(hits) == alone.retrieved_ids[0][:6].tolist()
        np.testing.assert_allclose([hit.distance for hit in hits], alone.distances[0][:6], rtol=1e-4)
    assert any(_positions(a) != _positions(b) for a, b in zip(found, index.search(queries, 6), strict=True))


def test_what_a_postprocessor_keeps_of_the_gallery_goes_when_the_gallery_changes(tmp_path: Path):
    index, expansion = random_index(tmp_path, n=40), QueryExpansion(3, database_side=True)
    queries = random_rows(np.arange(500, 503))
    first = index.search(queries, 5, postprocessor=expansion)
    assert index._kept and index.search(queries, 5, postprocessor=expansion) == first
    add_random(index, 30)
    fresh = random_index(tmp_path, n=70)
    assert index.search(queries, 5, postprocessor=expansion) == fresh.search(queries, 5, postprocessor=expansion)
    index.remove([f"{i:06d}.png" for i in range(40, 70)])
    assert index.search(queries, 5, postprocessor=expansion) == first


def test_a_postprocessor_searches_an_approximate_index(tmp_path: Path):
    index, flat = random_index(tmp_path, "HNSW32", n=200), random_index(tmp_path, n=200)
    queries = random_rows(np.arange(500, 504))
    for expansion in (QueryExpansion(3), QueryExpansion(3, database_side=True)):  # the expanded one exactly
        found = index.search(queries, 5, search_params="efSearch=200", postprocessor=expansion)
        assert paths_of(found) == paths_of(flat.search(queries, 5, postprocessor=expansion))


def test_a_postprocessor_that_needs_images_is_told(tmp_path: Path):
    chain = PostprocessorChain([QueryExpansion(3), ConstantThresholding(1.0)])
    with pytest.raises(ValueError, match="ConstantThresholding does not compute with embeddings alone"):
        random_index(tmp_path).search(random_rows(np.arange(2)), postprocessor=chain)
