"""An index follows its folder: in a folder, approximate or not, in Milvus and in shards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from helpers.mean_colour import paint
from helpers.milvus import needs_milvus
from oml_vit_ext.retrieval import (
    Embedder,
    ImageIndex,
    MilvusIndex,
    SearchIndex,
    ShardedIndex,
    list_images,
    open_index,
)
from oml_vit_ext.retrieval.index.update import AddReport


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


def test_a_photo_with_the_size_and_the_time_of_the_one_before(
    index: ImageIndex, photos: Path, embedder: Embedder
) -> None:
    """As ``cp -p`` and ``unzip`` leave them."""
    for colour in ((9, 200, 30), (200, 30, 9)):
        paint(photos / "new.bmp", colour)
        os.utime(photos / "new.bmp", ns=(10**18, 10**18))
        report = index.sync(photos, embedder)
    assert (report.changed, report.unchanged) == (1, 12)
    (hits,) = index.search_images(photos / "new.bmp", embedder, k=1)
    assert hits[0].path == "new.bmp" and hits[0].distance < 1e-3


def test_labels_stay_with_their_photos(index: ImageIndex, photos: Path, embedder: Embedder) -> None:
    paths = index.images.path.tolist()
    report = index.add(pd.DataFrame({"path": paths, "label": [f"of {path}" for path in paths]}), embedder)
    assert str(report) == "0 added, 0 changed, 12 unchanged, 0 broken"
    assert index.images.label.tolist() == [f"of {path}" for path in index.images.path], "labels are taken over"
    os.utime(photos / paths[0], ns=(1, 1))
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / paths[1])
    (photos / paths[2]).rename(photos / "renamed.png")
    report = index.sync(photos, embedder)
    assert (report.changed, report.renamed, report.added) == (1, 1, 0)
    assert dict(zip(index.images.path, index.images.label, strict=True)) == {
        path if path != paths[2] else "renamed.png": f"of {path}" for path in paths
    }


def test_a_root_may_have_several_names(
    photos: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path / "link")
    for root, others in ((tmp_path / "link", [photos, Path(".")]), (Path("."), [tmp_path / "link"])):
        index, _ = SearchIndex.build(root, embedder)
        for other in others:
            for source in (other, other / "shelf 1"):
                report = index.sync(source, embedder)
                assert not report.added + report.removed and report.unchanged in (6, 12)
            table = pd.DataFrame({"path": [str((other / "shelf 0/00.png").absolute())]})
            assert index.add(table, embedder).unchanged == 1
        assert index.remove(others[0].absolute() / "shelf 0/00.png") == 1


def test_a_list_without_images_is_what_is_left(index: ImageIndex, photos: Path, embedder: Embedder) -> None:
    """A shard of which all images are gone."""
    nothing = list_images(photos, photos)[:0]
    assert index.add(nothing, embedder) == AddReport() and len(index) == 12
    assert index.sync(nothing, embedder).removed == 12 and len(index) == 0


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
    with pytest.raises(ValueError, match=r"open the index with root= \(sync --root\)"):
        SearchIndex.load(tmp_path / "elsewhere/index").add(tmp_path / "elsewhere/photos", embedder)
    index = SearchIndex.load(tmp_path / "elsewhere/index", root=tmp_path / "elsewhere/photos")
    assert str(index.sync(tmp_path / "elsewhere/photos", embedder)) == "0 added, 0 changed, 12 unchanged, 0 broken"
    index.save()
    assert SearchIndex.load(tmp_path / "elsewhere/index").root == tmp_path / "elsewhere/photos"


@pytest.mark.parametrize("name", ["index", "shards", pytest.param("kept.db", marks=needs_milvus)])
def test_another_root_has_one_of_the_images_at_least(
    photos: Path, embedder: Embedder, tmp_path: Path, name: str
) -> None:
    place, known = tmp_path / name, embedder.fingerprint
    if name == "kept.db":
        made: ImageIndex = MilvusIndex.create(str(place), photos, known)
    else:
        made = ShardedIndex.create(photos, known, 2) if name == "shards" else SearchIndex(photos, known)
    made.add(photos, embedder)
    _close(made, place)
    shutil.copytree(photos, tmp_path / "other")
    for i, path in enumerate(sorted((tmp_path / "other").rglob("*.png"))):
        path.rename(path.with_name(f"new{i}.png"))
        Image.new("RGB", (30, 30), (20 * i, 255, 0)).save(path.with_name(f"new{i}.png"))
    index = open_index(place, root=tmp_path / "other")
    for change in (index.add, index.sync):
        with pytest.raises(ValueError, match=r"The root is '.*other', but 12 images of the index, made for '.*photos'"):
            change(tmp_path / "other", embedder)
    assert sorted(index.images.path) == list_images(photos, photos).path.tolist()
    _close(index, place)
    shutil.copyfile(photos / "shelf 0/00.png", tmp_path / "other/known.png")  # by its content
    index = open_index(place, root=tmp_path / "other")
    report = index.sync(tmp_path / "other", embedder)
    assert (report.renamed, report.added, report.removed) == (1, 12, 11)
    for path in (tmp_path / "other").rglob("new*.png"):
        path.rename(path.with_name(f"{path.stem}_new.png"))
        Image.new("RGB", (30, 30), (0, 0, 20 * len(path.stem))).save(path.with_name(f"{path.stem}_new.png"))
    (tmp_path / "other/known.png").unlink()
    assert index.sync(tmp_path / "other", embedder).removed == 13, "the root is known now: the photos are others"
    _close(index, place)
    assert open_index(place).root == tmp_path / "other"


@needs_milvus
def test_who_only_adds_to_milvus_leaves_its_root(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    """Others have the images at another place; ``sync`` says where they are for all."""
    place = tmp_path / "kept.db"
    made = MilvusIndex.create(str(place), photos, embedder.fingerprint)
    made.add(photos, embedder)
    made.close()
    mine = photos.rename(tmp_path / "mine")
    for change, root in (("add", photos), ("sync", mine)):
        index = open_index(place, root=mine)
        assert getattr(index, change)(mine, embedder).unchanged == 12
        index.close()
        index = open_index(place)
        assert index.root == root
        index.close()


def _close(index: ImageIndex, place: Path) -> None:
    if isinstance(index, SearchIndex | ShardedIndex):
        index.save(place)
    index.close()


def test_reports_are_summed_and_read():
    total = AddReport(1, 2, 3, [("a.png", "cut short")]) + AddReport(10, 20, 30, [("b.png", "gone")])
    assert total == AddReport(11, 22, 33, [("a.png", "cut short"), ("b.png", "gone")])
    assert str(total).splitlines() == [
        "11 added, 22 changed, 33 unchanged, 2 broken",
        "  broken: a.png: cut short",
        "  broken: b.png: gone",
    ]
