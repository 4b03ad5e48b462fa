"""Images that were renamed, replaced, copied or deleted since they were indexed; the same on disk and in Milvus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.embedders import paths_of
from oml_vit_ext.retrieval import Embedder, ImageIndex, MilvusIndex, SearchIndex, list_images

needs_milvus = pytest.mark.skipif(
    not all(map(find_spec, ("milvus_lite", "pymilvus"))), reason="needs pip install 'oml-vit-ext[milvus]'"
)


@pytest.fixture(params=["Flat", "HNSW8", pytest.param("Milvus", marks=needs_milvus)])
def index(request: pytest.FixtureRequest, photos: Path, embedder: Embedder, tmp_path: Path) -> Iterator[ImageIndex]:
    """An index of the twelve pictures."""
    if request.param == "Milvus":
        milvus = MilvusIndex.create(str(tmp_path / "index.db"), photos, embedder.fingerprint)
        milvus.add(photos, embedder)
        yield milvus
        milvus.close()
    else:
        yield SearchIndex.build(photos, embedder, index=request.param)[0]


@pytest.fixture()
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are embedded from now on."""
    names: list[str] = []
    embed = Embedder.embed
    monkeypatch.setattr(
        Embedder,
        "embed",
        lambda self, paths, *a, **k: names.extend(p.name for p in paths) or embed(self, paths, *a, **k),
    )
    return names


@pytest.mark.parametrize("how", ["add", "sync"])
def test_an_index_follows_its_folder(
    index: ImageIndex, photos: Path, embedder: Embedder, embedded: list[str], how: str
) -> None:
    (photos / "shelf 0/00.png").rename(photos / "moved.png")
    (photos / "shelf 1/01.png").unlink()
    shutil.copyfile(photos / "shelf 1/03.png", photos / "shelf 0/02.png")  # replaced
    os.utime(photos / "shelf 0/04.png", ns=(1, 1))  # as after a copy to another machine
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "new.png")
    report = getattr(index, how)(photos, embedder)
    assert str(report) == "1 added, 1 changed, 9 unchanged, 0 broken, 1 renamed, 1 removed"
    assert sorted(embedded) == ["02.png", "new.png"]
    paths = list_images(photos, photos).path.tolist()
    assert sorted(index.images.path) == sorted(paths) and len(index) == 12
    found = index.search_images([photos / path for path in paths], embedder, k=1)
    assert all(row[0].distance < 1e-2 for row in found)
    assert {row[0].path for row in found} >= {"moved.png", "new.png", "shelf 0/04.png"}
    assert index.add(photos, embedder).unchanged == 12


def test_a_synced_subfolder_leaves_the_rest_alone(index: ImageIndex, photos: Path, embedder: Embedder) -> None:
    for path in photos.rglob("0[01].png"):
        path.unlink()
    assert index.sync(photos / "shelf 1", embedder).removed == 1
    assert "shelf 0/00.png" in set(index.images.path) and len(index) == 11
    report = index.sync(pd.DataFrame({"path": ["shelf 0/02.png", "shelf 0/04.png"]}), embedder)
    assert (report.unchanged, report.removed, len(index)) == (2, 9, 2)


def test_an_image_that_can_no_longer_be_read_leaves_with_a_sync(
    index: ImageIndex, photos: Path, embedder: Embedder
) -> None:
    (photos / "shelf 0/00.png").write_text("no image")
    assert index.sync(photos, embedder).removed == 1
    assert "shelf 0/00.png" not in set(index.images.path) and len(index) == 11
    for path in photos.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(ValueError, match="None of the 12 images can be used"):
        index.sync(photos, embedder)
    assert len(index) == 11


def test_images_are_removed_by_name(index: ImageIndex, photos: Path, embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"Unknown image of the index 'shelf 0/03.png': did you mean"):
        index.remove(["shelf 0/00.png", "shelf 0/03.png"])
    assert len(index) == 12
    assert index.remove(["shelf 0/00.png", photos / "shelf 1/01.png"]) == 2 and index.remove("shelf 0/02.png") == 1
    x = embedder.embed_all([photos / "shelf 0/00.png"])
    (found,) = paths_of(index.search(x, k=20))
    assert len(found) == 9 and not {"shelf 0/00.png", "shelf 1/01.png", "shelf 0/02.png"} & set(found)
    assert index.remove(list(index.images.path)) == 9 and len(index) == 0
    with pytest.raises(ValueError, match="The index is empty"):
        index.search(x)
    assert index.add(photos, embedder).added == 12


def test_names_of_any_bytes_and_boxes(index: ImageIndex, photos: Path, embedder: Embedder) -> None:
    os.link(photos / "shelf 0/00.png", os.fsencode(photos) + b"/\xff\xfe'.png")
    assert index.add(photos, embedder).added == 1
    assert index.add(photos, embedder).unchanged == 13
    (odd,) = (path for path in index.images.path if "shelf" not in path)
    assert (photos / odd).exists() and index.remove(odd) == 1
    boxes = pd.DataFrame({"path": ["shelf 0/00.png"] * 2, "x_1": [0, 5], "y_1": [0, 5], "x_2": [9, 20], "y_2": [9, 30]})
    index.add(boxes, embedder)
    assert index.sync(photos / "shelf 0", embedder).removed == 0 and len(index) == 14
    assert index.remove("shelf 0/00.png") == 3


def test_what_has_left_is_not_on_disk_any_more(photos: Path, kept: Path, embedder: Embedder) -> None:
    index = SearchIndex.load(kept)
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "green.png")
    index.add(photos, embedder)
    index.save()
    index.remove("green.png")  # the whole second part
    index.remove("shelf 0/00.png")  # of the first
    index.save()
    index = SearchIndex.load(kept)
    assert len(index) == 11 and len(list(kept.glob("descriptors-*"))) == 1
    x = embedder.embed_all([photos / path for path in index.images.path])
    assert [row[0].path for row in index.search(x, 1)] == index.images.path.tolist()
    index.remove(index.images.path)
    index.save()
    index = SearchIndex.load(kept)
    assert len(index) == 0 and index.add(photos, embedder).added == 13
    with pytest.raises(ValueError, match="loaded with mmap=True"):
        SearchIndex.load(kept, mmap=True)._drop(["a"])


def test_an_index_of_an_earlier_version_has_no_contents(photos: Path, kept: Path, embedder: Embedder) -> None:
    index = SearchIndex.load(kept)
    index._table.images["digest"] = ""
    (photos / "shelf 0/00.png").rename(photos / "moved.png")
    report = index.add(photos, embedder)
    assert (report.added, report.renamed, report.removed) == (1, 0, 1)


def test_an_index_moves_with_its_photos(photos: Path, kept: Path, embedder: Embedder, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "elsewhere/photos", copy_function=shutil.copyfile)  # with new times
    shutil.rmtree(photos)
    shutil.move(kept, tmp_path / "elsewhere/index")
    with pytest.raises(ValueError, match="open the index with root="):
        SearchIndex.load(tmp_path / "elsewhere/index").add(tmp_path / "elsewhere/photos", embedder)
    index = SearchIndex.load(tmp_path / "elsewhere/index", root=tmp_path / "elsewhere/photos")
    assert str(index.sync(tmp_path / "elsewhere/photos", embedder)) == "0 added, 0 changed, 12 unchanged, 0 broken"
    index.save()
    assert SearchIndex.load(tmp_path / "elsewhere/index").root == tmp_path / "elsewhere/photos"


def test_a_half_finished_index_says_so(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    images = list_images(photos, photos)
    index, _ = SearchIndex.build(images[:5], embedder, root=photos)
    index.save(tmp_path / "index", finish=False)
    with pytest.warns(UserWarning, match="is half-finished.* It holds 5 images so far"):
        index = SearchIndex.load(tmp_path / "index")
    index.add(photos, embedder)
    index.save()
    assert np.array_equal(sorted(SearchIndex.load(tmp_path / "index").images.path), sorted(images.path))
