"""What every index does, shown by one that keeps its rows in a dict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.embedders import paths_of
from helpers.mean_colour import mean_colour_embedder, paint
from oml_vit_ext.retrieval import (
    Embedder,
    ImageIndex,
    MilvusIndex,
    SearchIndex,
    ShardedIndex,
    list_images,
    open_index,
)
from oml_vit_ext.retrieval.index.embedder import Embedded
from oml_vit_ext.retrieval.index.image_index import AddReport, Hit, Known
from oml_vit_ext.retrieval.index.image_list import COLUMNS


class InMemory(ImageIndex):
    """Keys to rows and embeddings; searches in a loop."""

    def __init__(self, root: Path, **more) -> None:
        super().__init__(root, mean_colour_embedder().fingerprint, more.get("config"))
        self.rows: dict[str, tuple[pd.Series, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def search(self, embeddings, k: int = 10, *, search_params: str = "") -> list[list[Hit]]:
        found = []
        for query in self._checked(embeddings, k).block(0, len(embeddings)):
            hits = [Hit(r.path, float(np.linalg.norm(query - x)), r.label, r.box) for r, x in self.rows.values()]
            found.append(sorted(hits, key=lambda hit: hit.distance)[:k])
        return found

    def _searchable(self, settings):
        raise NotImplementedError

    @property
    def images(self) -> pd.DataFrame:
        return pd.DataFrame([row for row, _ in self.rows.values()], columns=[*COLUMNS, "digest"])

    def _stamps(self, keys: list[str]) -> Mapping[str, Known]:
        found = {key: self.rows[key][0] for key in keys if key in self.rows}
        return {key: Known(row["size"], row.mtime_ns, row.digest, row.label) for key, row in found.items()}

    def _embeddings_of(self, keys: list[str]) -> np.ndarray:
        return np.stack([self.rows[key][1] for key in keys])

    def _drop(self, keys: list[str]) -> None:
        for key in keys:
            del self.rows[key]

    def _store(self, images: pd.DataFrame, embeddings: np.ndarray) -> None:
        self.rows |= {r.key: (r, x) for (_, r), x in zip(images.iterrows(), embeddings, strict=True)}


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    for i in range(4):
        paint(tmp_path / f"{i}.png", (60 * i + 10, 0, 0))
    return tmp_path


def test_images_are_new_changed_unchanged_or_broken(root: Path):
    index, embedder = InMemory(root), mean_colour_embedder()
    assert index.add(root, embedder) == AddReport(added=4)
    paint(root / "1.png", (0, 0, 200))  # changed
    (root / "2.png").write_text("broken now")
    paint(root / "new.png", (0, 90, 0))
    (root / "bad.png").write_text("never was one")
    report = index.add(root, embedder)
    assert (report.added, report.changed, report.unchanged) == (1, 1, 2)
    assert sorted(path for path, _ in report.broken) == ["2.png", "bad.png"]
    assert len(index) == 5, "the old row of 2.png stays"
    np.testing.assert_allclose(index.rows["1.png"][1], [0, 0, 200 / 255], atol=1e-6)
    os.utime(root / "3.png", ns=(5, 5))
    assert index.add(pd.DataFrame({"path": ["3.png"]}), embedder) == AddReport(unchanged=1), "the same content"


def test_a_long_run_is_stored_in_parts_whatever_the_order_of_the_blocks(root: Path):
    for i in range(9):
        paint(root / f"many/{i}.png", (20 * i, 5, 5))
    (root / "many/4.png").write_bytes(b"no picture")
    embedder, index, sizes = mean_colour_embedder(), InMemory(root), []
    in_order = embedder.embed

    def backwards(*args, **kwargs) -> Iterator[Embedded]:
        [batch] = in_order(*args, **kwargs)
        for i in reversed(range(len(batch.positions))):
            yield Embedded(batch.positions[i : i + 1], batch.embeddings[i : i + 1], [])
        yield Embedded([], np.empty((0, 3), np.float32), batch.broken)

    embedder.embed = backwards  # type: ignore[method-assign]
    report = index.add(root / "many", embedder, part_size=3, after_part=lambda: sizes.append(len(index)))
    assert (report.added, [path for path, _ in report.broken]) == (8, ["many/4.png"])
    assert sizes == [3, 6], "of eight"
    expected = InMemory(root)
    expected.add(root / "many", mean_colour_embedder())
    keys = sorted(expected.rows)
    assert sorted(index.rows) == keys
    np.testing.assert_array_equal(index._embeddings_of(keys), expected._embeddings_of(keys))
    with pytest.raises(ValueError, match="part_size is 0, expected a whole number of at least 1"):
        index.add(root, embedder, part_size=0)


def test_a_config_that_builds_nothing_is_told(root: Path):
    with pytest.raises(
        ValueError, match=r"holds the config \{'extractor': \[1\]\} .*, expected extractor and transforms"
    ):
        InMemory(root, config={"extractor": [1]}).embedder()


def test_reports_are_summed_and_read():
    total = AddReport(1, 2, 3, [("a.png", "cut short")]) + AddReport(10, 20, 30, [("b.png", "gone")])
    assert total == AddReport(11, 22, 33, [("a.png", "cut short"), ("b.png", "gone")])
    assert str(total).splitlines() == [
        "11 added, 22 changed, 33 unchanged, 2 broken",
        "  broken: a.png: cut short",
        "  broken: b.png: gone",
    ]


def test_an_image_finds_itself_and_its_neighbours(root: Path):
    index, embedder = InMemory(root), mean_colour_embedder()
    index.add(root, embedder)
    (row,) = index.search_images([root / "2.png"], embedder, k=3)
    assert row[0].path == "2.png" and row[0].distance < 1e-6
    assert {hit.path for hit in row[1:]} == {"1.png", "3.png"}


def test_one_path_is_one_query(root: Path):
    index, embedder = InMemory(root), mean_colour_embedder()
    index.add(root, embedder)
    in_list = index.search_images([root / "2.png"], embedder, k=2)
    assert index.search_images(root / "2.png", embedder, k=2) == in_list
    assert index.search_images(str(root / "2.png"), embedder, k=2) == in_list
    np.testing.assert_array_equal(embedder.embed_all(root / "2.png"), embedder.embed_all([root / "2.png"]))


def test_embeddings_of_elsewhere_are_taken_in_the_order_of_the_list(root: Path):
    index, embedder = InMemory(root), mean_colour_embedder()
    frame = pd.DataFrame({"path": ["3.png", "0.png"], "label": [7, 8]})
    x = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float16)
    assert index.add_embeddings(frame, x, embedder.fingerprint) == AddReport(added=2)
    assert index.rows["3.png"][1].tolist() == [1, 2, 3] and index.rows["0.png"][0].label == "8"
    assert index.add_embeddings(frame, x + 1, embedder.fingerprint) == AddReport(changed=2)
    with pytest.raises(ValueError, match="There are 1 embedding for 2 images: expected one each"):
        index.add_embeddings(frame, x[:1], embedder.fingerprint)


def test_another_model_and_other_embeddings_are_refused(root: Path):
    index, other = InMemory(root), mean_colour_embedder(2.0)
    for call, what in [
        (lambda: index.add(root, other), "The index and the images"),
        (lambda: index.search_images([root / "0.png"], other), "The index and the query"),
        (lambda: index.add_embeddings(root, np.ones((4, 3)), other.fingerprint), "The index and the embeddings"),
    ]:
        with pytest.raises(ValueError, match=f"{what} come from different models"):
            call()
    with pytest.raises(ValueError, match="The embeddings have 2 dimensions, but those of the index have 3"):
        index.search(np.ones((1, 2)))
    for k in (0, 2.5, "3", None, True):
        with pytest.raises(ValueError, match=f"k is {k!r}, expected a whole number of at least 1"):
            index.search(np.ones((1, 3)), k=k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The index holds no config of its model: build the Embedder yourself"):
        index.embedder()
    assert len(index) == 0


def test_nothing_usable_is_an_error(root: Path):
    for i in range(4):
        (root / f"{i}.png").write_text("broken")
    with pytest.raises(ValueError, match=r"None of the 4 images can be used; the first, '0\.png': not an image"):
        InMemory(root).add(root, mean_colour_embedder())


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


def _close(index: ImageIndex, place: Path) -> None:
    if isinstance(index, SearchIndex | ShardedIndex):
        index.save(place)
    index.close()


def test_a_half_finished_index_says_so(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    images = list_images(photos, photos)
    index, _ = SearchIndex.build(images[:5], embedder, root=photos)
    index.save(tmp_path / "index", finish=False)
    with pytest.warns(UserWarning, match="is half-finished.* It holds 5 images so far"):
        index = SearchIndex.load(tmp_path / "index")
    index.add(photos, embedder)
    index.save()
    assert np.array_equal(sorted(SearchIndex.load(tmp_path / "index").images.path), sorted(images.path))
