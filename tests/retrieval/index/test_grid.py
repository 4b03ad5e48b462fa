"""An index with a grid finds what fills a part of a picture, names the part, and keeps it through every change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.mean_colour import mean_colour_embedder, paint
from oml_vit_ext.images.reading import read_image
from oml_vit_ext.retrieval import SearchIndex
from oml_vit_ext.retrieval.index.grid import check_grid, grid_boxes, nearest_part, rows_per_image
from oml_vit_ext.retrieval.index.storage import MANIFEST

RED, GREEN, BLUE, GREY = (250, 5, 5), (5, 250, 5), (5, 5, 250), (90, 90, 90)


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    """Random mosaics of 6 × 6 px tiles, three wide and three high; in ``2.png`` one tile is red."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        tiles = rng.integers(40, 160, (3, 3, 3), dtype=np.uint8)
        if i == 2:
            tiles[1, 2] = RED
        Image.fromarray(tiles.repeat(6, axis=0).repeat(6, axis=1)).save(folder / f"{i}.png")
    paint(tmp_path / "red.png", RED)
    return folder


def _colours(file: Path, boxes: list) -> np.ndarray:
    picture = read_image(file)
    return np.stack([np.asarray(picture.crop(box)).reshape(-1, 3).mean(axis=0) / 255 for box in boxes])


@pytest.mark.parametrize(("region", "grid"), [((0, 0, 10, 7), 3), ((5, 2, 29, 26), 4), ((0, 0, 2, 1), 3)])
def test_parts_cover_the_region(region: tuple, grid: int):
    boxes = grid_boxes(region, grid)
    assert len(boxes) == grid**2 == rows_per_image(grid) - 1
    covered = np.zeros((40, 40), dtype=int)
    for x_1, y_1, x_2, y_2 in boxes:
        assert region[0] <= x_1 < x_2 and region[1] <= y_1 < y_2
        covered[y_1:y_2, x_1:x_2] += 1
    inside = covered[region[1] : region[3], region[0] : region[2]]
    assert (inside == 1).all() if min(region[2] - region[0], region[3] - region[1]) >= grid else (inside >= 1).all()


@pytest.mark.parametrize("grid", [1, -1, 17, 2.5, True])
def test_other_grids_are_refused(grid: object):
    with pytest.raises(ValueError, match=f"grid is {grid}, expected"):
        check_grid(grid)


def test_of_each_image_the_nearest_part_counts():
    rows = np.array([7, 5, 12, 4, 0, 11])  # images 1, 1, 2, 0, 0, 2 of five rows each
    assert nearest_part(rows, 2, 5).tolist() == [0, 2, 3] and nearest_part(rows, 2, 2).tolist() == [0, 2]
    assert nearest_part(np.array([3, 1, 2]), 0, 2).tolist() == [0, 1]


def test_it_is_the_smallest_distance_over_the_parts(photos: Path, tmp_path: Path):
    embedder = mean_colour_embedder(batch_size=7)  # images are split over batches
    index, report = SearchIndex.build(photos, embedder, grid=3)
    assert (report.added, len(index), index._table.rows().block(0, 50).shape) == (5, 5, (50, 3))
    [hits] = index.search_images([tmp_path / "red.png"], embedder, k=4)
    assert (hits[0].path, hits[0].crop) == ("2.png", "12,6,18,12") and hits[0].distance < 1e-3
    boxes = [(0, 0, 18, 18), *grid_boxes((0, 0, 18, 18), 3)]
    query = np.array(RED) / 255
    expected = {f"{i}.png": np.linalg.norm(_colours(photos / f"{i}.png", boxes) - query, axis=1) for i in range(5)}
    assert [hit.path for hit in hits] == sorted(expected, key=lambda path: expected[path].min())[:4]
    for hit in hits:
        assert hit.distance == pytest.approx(expected[hit.path].min(), abs=1e-5)
        part = boxes[expected[hit.path].argmin()]
        assert hit.crop == ("" if part == boxes[0] else ",".join(map(str, part)))
    plain, _ = SearchIndex.build(photos, embedder)
    [without] = plain.search_images([tmp_path / "red.png"], embedder, k=1)
    assert without[0].distance > 0.3 and without[0].crop == ""


def test_saved_loaded_mapped_and_approximate(photos: Path, tmp_path: Path):
    embedder = mean_colour_embedder()
    index, _ = SearchIndex.build(photos, embedder, grid=2, index="HNSW8")
    index.save(tmp_path / "index")
    expected = index.search_images([tmp_path / "red.png"], embedder, k=5)
    assert json.loads((tmp_path / "index" / MANIFEST).read_text())["content"]["grid"] == 2
    for mmap in (False, True):
        loaded = SearchIndex.load(tmp_path / "index", mmap=mmap)
        assert loaded.grid == 2 and len(loaded) == 5
        assert loaded.search_images([tmp_path / "red.png"], embedder, k=5) == expected
    flat, _ = SearchIndex.build(photos, embedder, grid=2)
    [hits] = flat.search_images([tmp_path / "red.png"], embedder, k=5)
    assert [(h.path, h.crop) for h in hits] == [(h.path, h.crop) for h in expected[0]]


def test_new_changed_renamed_and_removed_images(photos: Path, tmp_path: Path):
    embedder = mean_colour_embedder()
    index, _ = SearchIndex.build(photos, embedder, grid=3)
    index.save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index")
    (photos / "2.png").rename(photos / "renamed.png")
    (photos / "0.png").unlink()
    picture = Image.new("RGB", (30, 12), GREY)
    picture.paste(Image.new("RGB", (10, 4), BLUE), (20, 8))
    picture.save(photos / "1.png")  # of another size
    paint(photos / "new.png", GREEN)
    (photos / "broken.png").write_text("no image")
    report = index.sync(photos, embedder)
    assert (report.added, report.changed, report.renamed, report.removed, report.unchanged) == (1, 1, 1, 1, 2)
    assert [path for path, _ in report.broken] == ["broken.png"]
    index.save()
    index = SearchIndex.load(tmp_path / "index")
    for colour, path, crop in ((RED, "renamed.png", "12,6,18,12"), (BLUE, "1.png", "20,8,30,12")):
        [hits] = index.search_images([paint(tmp_path / "query.png", colour)], embedder, k=1)
        assert (hits[0].path, hits[0].crop) == (path, crop) and hits[0].distance < 1e-3
    assert index.sync(photos, embedder).unchanged == 5
    assert index.remove("renamed.png") == 1 and len(index) == 4
    [hits] = index.search_images([tmp_path / "red.png"], embedder, k=9)
    assert len(hits) == 4 and hits[0].distance > 0.3


def test_a_photo_on_its_side_and_parts_of_boxes(tmp_path: Path):
    embedder = mean_colour_embedder()
    picture = Image.new("RGB", (20, 10), GREY)
    picture.paste(Image.new("RGB", (10, 5), RED), (10, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter: 10 wide, 20 high, red at the lower left
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos/side.png", exif=exif)
    box = {"x_1": 0, "y_1": 10, "x_2": 10, "y_2": 20}
    df = pd.DataFrame([{"path": "side.png", "label": "a", **box}])
    query = paint(tmp_path / "red.png", RED)
    whole, _ = SearchIndex.build(tmp_path / "photos", embedder, grid=2)
    [[hit]] = whole.search_images([query], embedder, k=3)
    assert hit.crop == "0,10,5,20" and hit.distance < 1e-3
    boxed, _ = SearchIndex.build(df, embedder, root=tmp_path / "photos", grid=2)
    [[hit]] = boxed.search_images([query], embedder, k=3)
    assert (hit.box, hit.crop) == ("0,10,10,20", "0,10,5,15") and hit.distance < 1e-3


def test_an_image_is_decoded_once_for_all_its_parts(photos: Path, monkeypatch: pytest.MonkeyPatch):
    from oml_vit_ext.retrieval.index import embedder as module

    decoded = []
    reader = module.reader_for
    monkeypatch.setattr(
        module, "reader_for", lambda transform: lambda content: decoded.append(1) or reader(transform)(content)
    )
    SearchIndex.build(photos, mean_colour_embedder(batch_size=50), grid=3)
    assert len(decoded) == 5


def test_given_embeddings_and_other_grids_are_refused(photos: Path, tmp_path: Path):
    embedder = mean_colour_embedder()
    index, _ = SearchIndex.build(photos, embedder, grid=2)
    with pytest.raises(ValueError, match="has a grid of 2 x 2 parts, whose embeddings cannot be given"):
        index.add_embeddings(photos, np.ones((5, 3), np.float32), embedder.fingerprint)
    with pytest.raises(ValueError, match="grid is 1, expected 0 for none, or 2 and more"):
        SearchIndex(photos, embedder.fingerprint, grid=1)
