"""What every index does, shown by one that keeps its rows in a dict."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.mean_colour import mean_colour_embedder, paint
from oml_vit_ext.retrieval.index.image_index import AddReport, Hit, ImageIndex


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

    def _stamps(self, keys: list[str]) -> Mapping[str, tuple[int, int]]:
        found = {key: self.rows[key][0] for key in keys if key in self.rows}
        return {key: (row["size"], row.mtime_ns) for key, row in found.items()}

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
    assert index.add(pd.DataFrame({"path": ["3.png"]}), embedder) == AddReport(changed=1)


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


def test_embeddings_of_elsewhere_are_taken_in_the_order_of_the_list(root: Path):
    index, embedder = InMemory(root), mean_colour_embedder()
    frame = pd.DataFrame({"path": ["3.png", "0.png"], "label": [7, 8]})
    x = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float16)
    assert index.add_embeddings(frame, x, embedder.fingerprint) == AddReport(added=2)
    assert index.rows["3.png"][1].tolist() == [1, 2, 3] and index.rows["0.png"][0].label == "8"
    assert index.add_embeddings(frame, x + 1, embedder.fingerprint) == AddReport(changed=2)
    with pytest.raises(ValueError, match="There are 1 embeddings for 2 images: expected one each"):
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
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        index.search(np.ones((1, 3)), k=0)
    with pytest.raises(ValueError, match="The index holds no config of its model: build the Embedder yourself"):
        index.embedder()
    assert len(index) == 0


def test_nothing_usable_is_an_error(root: Path):
    for i in range(4):
        (root / f"{i}.png").write_text("broken")
    with pytest.raises(ValueError, match=r"None of the 4 images can be used; the first, '0\.png': Unidentified"):
        InMemory(root).add(root, mean_colour_embedder())
