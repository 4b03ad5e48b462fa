"""Tokens beside an index: the candidates of a query are not decoded, and what is stale is never used."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms as t
from PIL import Image

from helpers.photos import SIZE, small_model
from oml_vit_ext.reranking import STIRReranker, TokenStore
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.rerank_hits import rerank_hits

TO_TENSOR = t.Compose([t.Resize((SIZE, SIZE)), t.ToTensor()])
N = 6


@pytest.fixture()
def index(tmp_path: Path) -> SimpleNamespace:
    """What a store reads of an index: noisy pictures, one of them twice, with a box the second time."""
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    rows = [(f"{i}.png", "") for i in range(N)] + [("0.png", "5,5,30,30")]
    return SimpleNamespace(root=root, images=pd.DataFrame(rows, columns=["path", "box"]))


def hits_of(index: SimpleNamespace) -> list[Hit]:
    pairs = zip(index.images.path, index.images.box, strict=True)
    return [Hit(path, 0.1 * i, "", box) for i, (path, box) in enumerate(pairs)][1:]


def reranker_of(model) -> STIRReranker:
    return STIRReranker(top_n=20, pairwise_model=model, num_workers=0, batch_size=4)


@pytest.mark.parametrize("join_layer", [0, 2])
@pytest.mark.parametrize("precision, error", [("half", 1e-3), ("int8", 0.02)])
def test_candidates_are_not_decoded_and_come_in_the_same_order(
    index: SimpleNamespace, tmp_path: Path, join_layer: int, precision: str, error: float
):
    torch.manual_seed(0)
    model = small_model(join_layer=join_layer)
    store = TokenStore(tmp_path / "tokens", model, TO_TENSOR, precision=precision)
    assert str(store.sync(index)).startswith("7 encoded, 0 unchanged, 0 removed")
    reranker = reranker_of(model)
    query = index.root / "0.png"
    plain = rerank_hits(query, hits_of(index), index.root, reranker, TO_TENSOR)
    assert reranker.last_stats.decodes == 7
    stored = rerank_hits(query, hits_of(index), index.root, reranker, TO_TENSOR, tokens=store)
    assert reranker.last_stats.decodes == 1  # the query
    assert {hit.path: hit.distance for hit in stored if not hit.box} == pytest.approx(
        {hit.path: hit.distance for hit in plain if not hit.box}, abs=error
    )
    if precision == "half":
        assert [(hit.path, hit.box) for hit in stored] == [(hit.path, hit.box) for hit in plain]


def test_a_part_of_a_grid_is_decoded_since_the_store_holds_the_whole(index: SimpleNamespace, tmp_path: Path):
    model = small_model(join_layer=1)
    store = TokenStore(tmp_path / "tokens", model, TO_TENSOR)
    store.sync(index)
    hits = [hit._replace(crop="0,0,20,20") if hit.path == "3.png" else hit for hit in hits_of(index)]
    reranker = reranker_of(model)
    query = index.root / "0.png"
    plain = rerank_hits(query, hits, index.root, reranker, TO_TENSOR)
    stored = rerank_hits(query, hits, index.root, reranker, TO_TENSOR, tokens=store)
    assert reranker.last_stats.decodes == 2  # the query and the part
    assert [hit.path for hit in stored] == [hit.path for hit in plain]


def test_it_keeps_step_with_the_index(index: SimpleNamespace, tmp_path: Path):
    model = small_model(join_layer=1)
    store = TokenStore(tmp_path / "tokens", model, TO_TENSOR)
    store.sync(index)
    assert str(store.sync(index)).startswith("0 encoded, 7 unchanged, 0 removed")
    Image.new("RGB", (40, 40), "red").save(index.root / "3.png")
    os.utime(index.root / "3.png", ns=(1, 1))  # changed, for certain
    index.images = index.images[index.images.path != "4.png"].reset_index(drop=True)
    reranker = reranker_of(model)
    changed = [hit for hit in hits_of(index) if hit.path in ("2.png", "3.png")]
    rerank_hits(index.root / "1.png", changed, index.root, reranker, TO_TENSOR, tokens=store)
    assert reranker.last_stats.decodes == 2  # the query, and the image whose tokens are out of date
    report = store.sync(index)
    assert (report.encoded, report.unchanged, report.removed) == (1, 5, 2)
    assert len(list((tmp_path / "tokens").rglob("*.npy"))) == 6


def test_another_model_or_transform_finds_nothing_and_takes_the_old_away(index: SimpleNamespace, tmp_path: Path):
    torch.manual_seed(0)
    model, other = small_model(join_layer=1), small_model(join_layer=1)
    folder = tmp_path / "tokens"
    TokenStore(folder, model, TO_TENSOR).sync(index)
    paths, boxes = [index.root / "1.png"], [None]
    assert TokenStore(folder, model, TO_TENSOR).files(paths, boxes) != [None]
    wider = t.Compose([t.Resize((SIZE + 8, SIZE + 8)), t.ToTensor()])
    for store in (
        TokenStore(folder, other, TO_TENSOR),
        TokenStore(folder, model, wider),
        TokenStore(folder, model, TO_TENSOR, precision="int8"),
    ):
        assert store.files(paths, boxes) == [None]
    with pytest.raises(ValueError, match="tokens are of another model or transform than the re-ranker's"):
        store = TokenStore(folder, other, TO_TENSOR)
        rerank_hits(paths[0], hits_of(index), index.root, reranker_of(model), TO_TENSOR, tokens=store)
    (folder / "notes.txt").write_text("not ours")
    assert TokenStore(folder, other, TO_TENSOR).sync(index).encoded == 7
    assert len(list(folder.glob("[!.]*"))) == 2 and (folder / "notes.txt").is_file()


def test_damaged_files_are_decoded_instead(index: SimpleNamespace, tmp_path: Path):
    model = small_model(join_layer=1)
    store = TokenStore(tmp_path / "tokens", model, TO_TENSOR)
    store.sync(index)
    reranker = reranker_of(model)
    plain = rerank_hits(index.root / "0.png", hits_of(index), index.root, reranker, TO_TENSOR)
    for file in list((tmp_path / "tokens").rglob("*.npy"))[:3]:
        file.write_bytes(b"damaged")
    found = rerank_hits(index.root / "0.png", hits_of(index), index.root, reranker, TO_TENSOR, tokens=store)
    assert {h.path: h.distance for h in found if not h.box} == pytest.approx(
        {h.path: h.distance for h in plain if not h.box}, abs=1e-3
    )


def test_it_stays_within_its_bound(index: SimpleNamespace, tmp_path: Path):
    model = small_model(join_layer=1)
    one = 2 * 17 * 48 + 128  # tokens of an image, and the header of their file
    store = TokenStore(tmp_path / "tokens", model, TO_TENSOR, max_mb=3.5 * one / 1e6)
    report = store.sync(index)
    assert (report.encoded, report.without_room) == (3, 4) and report.mb <= 3.5 * one / 1e6
    assert sum(f.stat().st_size for f in (tmp_path / "tokens").rglob("*.npy")) == 3 * one
    again = store.sync(index)
    assert (again.encoded, again.unchanged, again.without_room) == (0, 3, 4)


def test_unreadable_images_are_left_out(index: SimpleNamespace, tmp_path: Path):
    (index.root / "2.png").write_bytes(b"no image")
    (index.root / "5.png").unlink()
    report = TokenStore(tmp_path / "tokens", small_model(), TO_TENSOR).sync(index)
    assert (report.encoded, report.unreadable) == (5, 2)


def test_wrong_arguments(tmp_path: Path):
    with pytest.raises(TypeError, match="model is a Linear, expected a STIRSiamese"):
        TokenStore(tmp_path, torch.nn.Linear(1, 1), TO_TENSOR)
    with pytest.raises(ValueError, match="Unknown precision 'int4'"):
        TokenStore(tmp_path, small_model(), TO_TENSOR, precision="int4")
    with pytest.raises(ValueError, match="max_mb is 0, expected"):
        TokenStore(tmp_path, small_model(), TO_TENSOR, max_mb=0)


def test_only_tokens_are_taken_away(index: SimpleNamespace, tmp_path: Path):
    """Folders of hex digits may be somebody else's."""
    folder = tmp_path / "tokens"
    TokenStore(folder, small_model(), TO_TENSOR).sync(index)
    (former,) = folder.glob("[!.]*")
    (former / f".{'0' * 32}.1-2.partial.npy").touch()
    theirs = [folder / ("1" * 32) / "photo.jpg", folder / ("2" * 32) / f"{'a' * 32}.npy" / "photo.jpg"]
    for file in theirs:
        file.parent.mkdir(parents=True)
        file.write_text("mine")
    (tmp_path / "album").mkdir()
    (folder / ("3" * 32)).symlink_to(tmp_path / "album")
    TokenStore(folder, small_model(), TO_TENSOR, precision="int8").sync(index)
    assert not former.exists() and all(file.read_text() == "mine" for file in theirs)
    assert (folder / ("3" * 32)).is_symlink() and (tmp_path / "album").is_dir()


def test_one_sync_at_a_time(index: SimpleNamespace, tmp_path: Path):
    """Two of different models would take each other's files away while they are written."""
    one, other = (TokenStore(tmp_path / "tokens", small_model(join_layer=k), TO_TENSOR) for k in (0, 2))
    refused = []

    def images() -> pd.DataFrame:
        with pytest.raises(RuntimeError, match=r"tokens' are being written by another process or thread"):
            other.sync(index)
        refused.append(True)
        return index.images

    class Meanwhile(SimpleNamespace):
        images = property(lambda _: images())

    assert one.sync(Meanwhile(root=index.root)).encoded == 7 and refused == [True]
    assert other.sync(index).encoded == 7 and not one.is_there
