"""The same index in Milvus, for real on milvus-lite."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oml.retrieval import ConstantThresholding
from PIL import Image

from helpers.embedders import make_embedder, paths_of
from helpers.milvus import needs_milvus
from helpers.milvus_server import PROGRAM, MilvusServer
from helpers.random_index import add_numbers, random_index, random_rows
from oml_vit_ext.reranking import KReciprocalReranker, PostprocessorChain, QueryExpansion
from oml_vit_ext.retrieval import Embedder, MilvusIndex, SearchIndex, list_images, search_shards


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return make_embedder()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 36)).save(root / f"{i:02d}'.png")
    return root


@needs_milvus
def test_it_answers_like_the_index_on_disk_and_survives_the_process(
    photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, photos, embedder.fingerprint, index="HNSW", index_params={"M": 8})
    report = milvus.add(photos, embedder)
    assert report.added == len(milvus) == 10
    paths = [photos / path for path in list_images(photos, photos).path]
    exact, _ = SearchIndex.build(photos, embedder)
    expected = exact.search_images(paths, embedder, k=4)
    for _ in range(2):
        got = milvus.search_images(paths, embedder, k=4, search_params="ef=32")
        assert paths_of(got) == paths_of(expected)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose([h.distance for h in ours], [h.distance for h in theirs], atol=1e-3)
        assert milvus.add(photos, embedder).unchanged == 10
        milvus.close()
        milvus = MilvusIndex.open(uri)
    with pytest.raises(ValueError, match="different models"):
        milvus.search_images(paths[:1], make_embedder(1))
    with pytest.raises(ValueError, match="10 dimensions"):
        milvus.search(np.ones((1, 10), np.float32))
    with pytest.raises(ValueError, match="at most 16384"):
        milvus.search(np.ones((1, 192), np.float32), k=20_000)
    with pytest.raises(ValueError, match="'ef' are not understood"):
        milvus.search(np.ones((1, 192), np.float32), search_params="ef")
    assert len(milvus.search(np.ones((1, 192), np.float32), k=100)[0]) == 10
    milvus.close()


CANDIDATES_ALONE = [
    QueryExpansion(3),
    KReciprocalReranker(4, 2, top_n=15),
    PostprocessorChain([QueryExpansion(3), KReciprocalReranker(4, 2, top_n=10)]),
]


@pytest.fixture()
def random_milvus(tmp_path: Path) -> Iterator[MilvusIndex]:
    """The sixty images of ``random_index``."""
    exact = random_index(tmp_path, n=60)
    milvus = MilvusIndex.create(str(tmp_path / "index.db"), tmp_path, exact.fingerprint, index="FLAT")
    add_numbers(milvus, np.random.default_rng(0).permutation(60))
    yield milvus
    milvus.close()


@needs_milvus
def test_postprocessors_of_candidates_give_what_they_give_on_disk(random_milvus: MilvusIndex) -> None:
    queries = random_rows(np.arange(500, 520))
    exact = random_index(random_milvus.root, n=60)
    shards = [random_milvus, random_index(random_milvus.root, n=0)]
    add_numbers(shards[1], np.arange(60, 90))
    both = random_index(random_milvus.root, n=90)
    for postprocessor in CANDIDATES_ALONE:
        for memory_mb in (256.0, 0.003):  # that is two queries at once
            found = random_milvus.search(queries, 8, postprocessor=postprocessor, memory_mb=memory_mb)
            expected = exact.search(queries, 8, postprocessor=postprocessor)
            assert paths_of(found) == paths_of(expected) != paths_of(exact.search(queries, 8))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose([h.distance for h in ours], [h.distance for h in theirs], atol=1e-4)
        together = search_shards(shards, queries, 8, postprocessor=postprocessor)
        assert paths_of(together) == paths_of(both.search(queries, 8, postprocessor=postprocessor))


@needs_milvus
def test_postprocessors_of_the_whole_gallery_are_refused(random_milvus: MilvusIndex) -> None:
    queries = random_rows(np.arange(2))
    whole = [QueryExpansion(3, database_side=True), KReciprocalReranker(4, 2)]
    for postprocessor in (*whole, PostprocessorChain([QueryExpansion(3), whole[1]])):
        with pytest.raises(
            ValueError, match=f"{type(postprocessor).__name__} that compares the whole gallery, expected for a Milvus"
        ):
            random_milvus.search(queries, postprocessor=postprocessor)
    chain = PostprocessorChain([QueryExpansion(3), ConstantThresholding(1.0)])
    with pytest.raises(ValueError, match="ConstantThresholding does not compute with embeddings alone"):
        random_milvus.search(queries, postprocessor=chain)
    with pytest.raises(ValueError, match="first_dims is 4, expected None for a MilvusIndex"):
        search_shards([random_milvus], queries, first_dims=4)
    random_milvus.remove([f"{i:06d}.png" for i in range(60)])
    with pytest.raises(ValueError, match="The index is empty"):
        random_milvus.search(queries, postprocessor=QueryExpansion(3))


@needs_milvus
def test_a_changed_image_replaces_the_old_one_and_labels_and_boxes_come_back(
    photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, tmp_path, embedder.fingerprint)
    Image.new("RGB", (30, 30), (0, 255, 0)).save(tmp_path / "a.png")
    df = pd.DataFrame({"path": ["a.png"], "label": [3], "x_1": [0], "y_1": [0], "x_2": [9], "y_2": [8]})
    milvus.add(df, embedder)
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "a.png")
    assert milvus.add(df, embedder).changed == 1
    assert len(milvus) == 1
    (row,) = milvus.search_images([tmp_path / "a.png"], embedder)
    assert (row[0].path, row[0].label, row[0].box) == ("a.png", "3", "0,0,9,8")
    assert row[0].distance < 1e-2
    milvus.close()


@needs_milvus
def test_a_half_finished_index_says_so(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    uri = str(tmp_path / "index.db")
    milvus = MilvusIndex.create(uri, photos, embedder.fingerprint)
    stored = iter(range(2))

    def interrupted() -> None:
        if next(stored) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        milvus.add(photos, make_embedder(batch_size=2), part_size=4, after_part=interrupted)
    milvus.close()
    with pytest.warns(UserWarning, match="'images' is half-finished.* It holds 8 images so far"):
        milvus = MilvusIndex.open(uri, root=tmp_path)
    milvus.root = photos
    with pytest.raises(ValueError, match="different models"):
        milvus.add(photos, make_embedder(1))
    assert milvus.add(photos, embedder).added == 2
    milvus.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        milvus = MilvusIndex.open(uri)
    assert len(milvus) == 10 and milvus.root == photos  # the place that is stored stays
    milvus.close()


@needs_milvus
def test_wrong_names_and_places_are_told(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    uri = str(tmp_path / "index.db")
    MilvusIndex.create(uri, photos, embedder.fingerprint, collection="shelves", config={"extractor": {}}).close()
    with pytest.raises(FileExistsError, match="has a collection 'shelves' already"):
        MilvusIndex.create(uri, photos, embedder.fingerprint, collection="shelves")
    with pytest.raises(FileNotFoundError, match=r"Unknown collection 'shelf'.*did you mean 'shelves'"):
        MilvusIndex.open(uri, collection="shelf")
    with pytest.raises(FileNotFoundError, match="no milvus-lite file"):
        MilvusIndex.open(str(tmp_path / "other.db"))
    with pytest.raises(ValueError, match=r"expected a file name ending in '\.db' or a URL"):
        MilvusIndex.create("index", photos, embedder.fingerprint)
    for name in ("", "a b", "1st", "../x", "ü", None, "x" * 300):
        for use in (
            lambda name: MilvusIndex.create(uri, photos, embedder.fingerprint, collection=name),
            lambda name: MilvusIndex.open(uri, collection=name),
        ):
            with pytest.raises(ValueError, match="expected a name of letters, digits and underscores"):
                use(name)
    again = MilvusIndex.open(uri, collection="shelves")
    assert again.config == {"extractor": {}} and again.root == photos and len(again) == 0
    again.close()


def test_without_the_extra_the_error_names_it(
    photos: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install 'oml-vit-ext\[milvus\]'"):
        MilvusIndex.create(str(tmp_path / "index.db"), photos, embedder.fingerprint)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    if not PROGRAM.is_file():
        pytest.skip("needs a Milvus server: make milvus-server")
    running = MilvusServer(tmp_path_factory.mktemp("milvus") / "data")
    running.start()
    yield running
    running.kill()


def _rows(n: int) -> tuple[pd.DataFrame, np.ndarray]:
    names = [f"{i:05d}.jpg" for i in range(n)]
    images = pd.DataFrame({"key": names, "path": names, "label": "", "box": "", "size": 1, "mtime_ns": 2, "digest": ""})
    return images, np.random.default_rng(0).normal(size=(n, 192)).astype(np.float32)


@needs_milvus
@pytest.mark.parametrize(
    ("index", "params", "search_params"),
    [
        ("AUTOINDEX", {}, ""),
        ("HNSW", {"M": 16, "efConstruction": 100}, "ef=64"),
        ("IVF_PQ", {"nlist": 4, "m": 48, "nbits": 8}, "nprobe=4"),
    ],
)
def test_a_real_server_finds_the_neighbours_that_the_index_on_disk_finds(
    server: MilvusServer, photos: Path, embedder: Embedder, index: str, params: dict, search_params: str
) -> None:
    milvus = MilvusIndex.create(
        server.uri, photos, embedder.fingerprint, collection=index, index=index, index_params=params, patience=120
    )
    milvus.add(photos, embedder)
    exact, _ = SearchIndex.build(photos, embedder)
    paths = [photos / path for path in list_images(photos, photos).path]
    got = milvus.search_images(paths, embedder, k=5, search_params=search_params)
    assert paths_of(got) == paths_of(exact.search_images(paths, embedder, k=5))


@needs_milvus
def test_two_writers_fill_one_collection_side_by_side(server: MilvusServer, embedder: Embedder, tmp_path: Path) -> None:
    first = MilvusIndex.create(server.uri, tmp_path, embedder.fingerprint, collection="both", patience=120)
    second = MilvusIndex.open(server.uri, collection="both")
    images, embeddings = _rows(400)
    parts = [slice(0, 250), slice(150, 400)]  # a hundred from both
    with ThreadPoolExecutor(2) as threads:
        for done in [
            threads.submit(index._store, images[part].reset_index(drop=True), embeddings[part])
            for index, part in zip((first, second), parts, strict=True)
        ]:
            done.result()
    assert first.images.key.tolist() == images.key.tolist(), "each exactly once"
    assert [hits[0].path for hits in second.search(embeddings[::50], k=1)] == images.path[::50].tolist()


@needs_milvus
def test_a_server_killed_while_images_are_stored_loses_nothing_that_it_has_acknowledged(
    server: MilvusServer, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    milvus = MilvusIndex.create(server.uri, tmp_path, embedder.fingerprint, collection="killed", patience=120)
    monkeypatch.setattr(milvus, "_rows_per_message", lambda: 20)
    images, embeddings = _rows(200)
    milvus._store(images[:100], embeddings[:100])
    milvus._client.patience = 2.0
    server.kill()
    with pytest.raises(ConnectionError, match=r"has not answered for 2 s: .*\. 100 images that were added are in; "):
        milvus._store(images[100:].reset_index(drop=True), embeddings[100:])
    server.start()
    if not server.answers(60):
        pytest.skip("Milvus itself has not come back within a minute of being killed: it listens to no client")
    milvus._client.patience = 120.0
    milvus._store(images[100:].reset_index(drop=True), embeddings[100:])
    assert milvus.images.key.tolist() == images.key.tolist()


@needs_milvus
def test_a_file_of_somebody_else_leads_nowhere(tmp_path: Path) -> None:
    fingerprint = random_index(tmp_path, n=0).fingerprint
    made = MilvusIndex.create(str(tmp_path / "a.db"), tmp_path, fingerprint)
    images = {"key": "x", "path": "../../secret.png", "box": "", "label": "", "size": 1, "mtime_ns": 1, "digest": ""}
    made._store(pd.DataFrame([images], dtype=object), random_rows(np.array([1])))
    for ask in (lambda: made.search(random_rows(np.array([1])), 1), lambda: made.images):
        with pytest.raises(ValueError, match=r"holds the image '../../secret.png', expected a path below its root"):
            ask()
    for info in ("{}", "[]", "no JSON", '{"model": {"model": "m", "weights": "w", "transforms": "t"}, "root": 3}'):
        made._client.upsert("images_model", [{"key": "model", "descriptor": [1.0] * 8, "info": info}])
        with pytest.raises(ValueError, match=r"a.db' does not say which model it is of \("):
            MilvusIndex.open(str(tmp_path / "a.db"))
    made.close()


@needs_milvus
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.db").mkdir()
    (tmp_path / "mine.db" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="is no index of milvus-lite and holds other files"):
        MilvusIndex.create(str(tmp_path / "mine.db"), tmp_path, random_index(tmp_path, n=0).fingerprint)
    assert [path.name for path in (tmp_path / "mine.db").iterdir()] == ["notes.txt"]
