"""The approximate index beside the embeddings: kept, brought up to date once, never changed by a search."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.embedders import paths_of
from helpers.random_index import add_random, random_index, random_rows
from oml_vit_ext.retrieval import Embedder, SearchIndex
from oml_vit_ext.retrieval.engines import add_rows
from oml_vit_ext.retrieval.index import kept_faiss


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("factory", ["IVF2,Flat", "HNSW8"])
def test_an_approximate_index_is_kept_and_grows(
    photos: Path, embedder: Embedder, tmp_path: Path, factory: str, mmap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = "nprobe=2" if factory.startswith("IVF") else "efSearch=64"
    index, _ = SearchIndex.build(photos, embedder, index=factory)
    index.save(tmp_path / "index")
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "green.png")
    index = SearchIndex.load(tmp_path / "index")
    index.add(photos, embedder)
    index.save(finish=False)  # the faiss index of the first 12 stays beside 13 embeddings
    index = SearchIndex.load(tmp_path / "index")
    assert index._faiss.index.ntotal == 12
    monkeypatch.setattr(kept_faiss, "build_index", lambda *a, **k: pytest.fail("trained again for one image"))
    index.save()
    assert len(list((tmp_path / "index").glob("faiss-*"))) == 1

    index = SearchIndex.load(tmp_path / "index", mmap=mmap)
    x = embedder.embed_all([photos / "green.png", photos / "shelf 0/02.png"])
    exact, _ = SearchIndex.build(photos, embedder)
    found = index.search(x, 4, search_params=params)
    assert paths_of(found) == paths_of(exact.search(x, 4))
    if mmap:
        with pytest.raises(ValueError, match="loaded with mmap=True and cannot be changed"):
            index._store(index.images[:1], x[:1])


def test_a_changed_image_is_found_by_its_new_content_in_an_approximate_index(
    photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    index, _ = SearchIndex.build(photos, embedder, index="HNSW8")
    index.save(tmp_path / "index")
    Image.new("RGB", (30, 30), (0, 255, 0)).save(photos / "shelf 0/04.png")
    index.add(photos, embedder)
    index.save()
    index = SearchIndex.load(tmp_path / "index")
    assert faiss.read_index(str(next((tmp_path / "index").glob("faiss-*")))).ntotal == 12
    (row,) = index.search_images([photos / "shelf 0/04.png"], embedder, k=1)
    assert row[0].path == "shelf 0/04.png" and row[0].distance < 1e-5


@pytest.mark.parametrize("mmap", [False, True])
def test_the_settings_of_one_search_do_not_stay(embedder: Embedder, tmp_path: Path, mmap: bool) -> None:
    x = np.random.default_rng(0).standard_normal((300, 192), dtype=np.float32)
    index = SearchIndex(tmp_path, embedder.fingerprint, "IVF16,Flat")
    index.add_embeddings(pd.DataFrame({"path": [f"{i}.png" for i in range(300)]}), x, embedder.fingerprint)
    index.save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index", mmap=mmap)
    first, wide, again = (index.search(x[:20] + 0.3, search_params=params) for params in ("", "nprobe=16", ""))
    assert first == again != wide


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW8"])
def test_threads_that_search_after_an_addition_add_it_once(
    embedder: Embedder, tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((500, 192), dtype=np.float32)
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(500)]})
    index = SearchIndex(tmp_path, embedder.fingerprint, factory)
    index.add_embeddings(frame[:300], x[:300], embedder.fingerprint)
    index.search(x[:1])
    index.add_embeddings(frame[300:], x[300:], embedder.fingerprint)
    additions: list[int] = []

    def slowly(*args, **settings) -> None:  # all threads are there before the first has finished
        additions.append(settings["start"])
        time.sleep(0.05)
        add_rows(*args, **settings)

    monkeypatch.setattr(kept_faiss, "add_rows", slowly)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: index.search(x[i], 1)[0][0].path, range(300, 340)))
    assert additions == [300] and index._faiss.index.ntotal == 500
    assert sum(path == f"{300 + i}.png" for i, path in enumerate(found)) > 35  # itself
    index.save(tmp_path / "index")
    assert len(SearchIndex.load(tmp_path / "index").search(x[0], 5)[0]) == 5


def test_a_faiss_file_of_more_rows_than_images_is_refused(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((20, 192), dtype=np.float32)
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(20)]})
    index = SearchIndex(tmp_path, embedder.fingerprint, "HNSW8")
    index.add_embeddings(frame, x, embedder.fingerprint)
    index.search(x[:1])
    index._faiss.index.add(x[:3])
    monkeypatch.setattr(index._faiss, "up_to_date", lambda rows: index._faiss.index)
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match="holds 23 rows, expected at most 20, one for each image"):
        SearchIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVVF", "'IVVF' cannot be built"),
        ("IDMap,HNSW8", "'IDMap,HNSW8' cannot be filled: IDMap expects a number with each row"),
        ("PCA64,IDMap2,Flat", "cannot be filled"),
        ("IVF100,Flat", "cannot be trained on a gallery of 12 rows of dimension 192, expected at least 100"),
        ("IVF2,PQ8x5", "expected at least 32"),
        ("PQ8np", "expected at least 256"),
        ("PCA200,Flat", r"The number of dimensions in index 'PCA200,Flat' is 200, expected .* 1 to 192"),
        ("PCAWR200,IVF2,Flat", "is 200, expected a whole number from 1 to 192"),
        ("PCA64,Flat", "cannot be trained on a gallery of 12 rows of dimension 192, expected at least 64"),
        ("ITQ200,LSH", "is 200, expected a whole number from 1 to 192"),
        ("ZnLattice3x10_6", "cannot be filled: faiss writes such an index to a file, but cannot read it again"),
        (None, "index is None, expected a faiss factory string"),
    ],
)
def test_an_index_that_cannot_be_filled_is_told_before_the_work(
    photos: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, factory: str, message: str
) -> None:
    monkeypatch.setattr(Embedder, "embed", lambda *_, **__: pytest.fail("an image was embedded"))
    with pytest.raises(ValueError, match=message):
        SearchIndex.build(photos, embedder, index=factory)


@pytest.mark.parametrize("factory", ["LSH", "LSHt", "PCA8,Flat", "PCAR8,SQ8", "Pad200,PCA9,Flat", "RR8,Flat", "RaBitQ"])
def test_indexes_of_few_bytes_are_read_again(embedder: Embedder, tmp_path: Path, factory: str) -> None:
    x = np.random.default_rng(0).standard_normal((20, 192), dtype=np.float32)
    index = SearchIndex(tmp_path, embedder.fingerprint, factory)
    index.add_embeddings(pd.DataFrame({"path": [f"{i}.png" for i in range(20)]}), x, embedder.fingerprint)
    index.save(tmp_path / "index")
    again = SearchIndex.load(tmp_path / "index")
    assert again.search(x[:2], 3) == index.search(x[:2], 3)


def test_too_few_images_for_the_index_leave_nothing_on_disk(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    index = SearchIndex(photos, embedder.fingerprint, "IVF100,Flat")  # more may come
    index.add(photos, embedder)
    with pytest.raises(ValueError, match="cannot be trained on a gallery of 12 rows"):
        index.save(tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_one_that_was_asked_before_its_images_left_is_saved(tmp_path: Path) -> None:
    random_index(tmp_path, "HNSW8").save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index")
    add_random(index, 1)
    index.search(random_rows([1]))
    index.remove(index.images.path)
    index.save()
    assert len(SearchIndex.load(tmp_path / "index")) == 0
