"""What every index does, shown by one that keeps its rows in a dict."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.embedders import paths_of
from helpers.mean_colour import mean_colour_embedder, paint
from oml_vit_ext.retrieval import Embedder, ImageIndex, SearchIndex, list_images
from oml_vit_ext.retrieval.index.embedder import Embedded
from oml_vit_ext.retrieval.index.image_index import Hit
from oml_vit_ext.retrieval.index.image_list import COLUMNS
from oml_vit_ext.retrieval.index.update import AddReport, Known


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
    with pytest.raises(ValueError, match="1 embedding is given for 2 images: expected one each"):
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


def test_a_half_finished_index_says_so(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    images = list_images(photos, photos)
    index, _ = SearchIndex.build(images[:5], embedder, root=photos)
    index.save(tmp_path / "index", finish=False)
    with pytest.warns(UserWarning, match="is half-finished.* It holds 5 images so far"):
        index = SearchIndex.load(tmp_path / "index")
    index.add(photos, embedder)
    index.save()
    assert np.array_equal(sorted(SearchIndex.load(tmp_path / "index").images.path), sorted(images.path))
