"""Several folders that answer as one."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.embedders import make_embedder, paths_of
from helpers.random_index import random_index
from oml_vit_ext.retrieval import Embedder, SearchIndex, ShardedIndex, list_images
from oml_vit_ext.retrieval.index import shard_folders, shard_number

N = 12


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return make_embedder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((36, 36)).save(root / f"{i:02d}.png")
    return root


def _made(photos: Path, embedder: Embedder, n_shards: int = 3, **more) -> ShardedIndex:
    index = ShardedIndex.create(photos, embedder.fingerprint, n_shards, **more)
    assert index.add(photos, embedder).added == N
    return index


def test_it_answers_like_one_index(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    one, _ = SearchIndex.build(photos, embedder)
    index = _made(photos, embedder)
    index.save(tmp_path / "shards")
    loaded = ShardedIndex.load(tmp_path / "shards")
    queries = sorted(photos.iterdir())
    expected = one.search_images(queries, embedder, k=7)
    for made in (index, loaded):
        assert len(made) == N and sorted(made.images.key) == one.images.key.tolist()
        found = made.search_images(queries, embedder, k=7)
        assert paths_of(found) == paths_of(expected)
        np.testing.assert_allclose(
            made._embeddings_of(one.images.key.tolist()), one._embeddings_of(one.images.key.tolist()), atol=1e-6
        )
    for i, shard in enumerate(loaded.shards):
        assert all(zlib.crc32(os.fsencode(key)) % 3 == i for key in shard.images.key) and len(shard)


def test_an_update_finds_images_wherever_they_are(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    index = _made(photos, embedder)
    index.save(tmp_path / "shards")
    old = sorted(path.name for path in photos.iterdir())[:4]
    new = next(name for name in (f"new{i}.png" for i in range(99)) if shard_number(name, 3) != shard_number(old[0], 3))
    (photos / old[0]).rename(photos / new)  # goes into another shard, with its embedding
    (photos / old[1]).unlink()
    Image.new("RGB", (36, 36), "red").save(photos / old[2])
    loaded = ShardedIndex.load(tmp_path / "shards")
    report = loaded.sync(photos, embedder)
    assert (report.renamed, report.removed, report.changed, report.added) == (1, 1, 1, 0)
    loaded.save(tmp_path / "shards")
    expected, _ = SearchIndex.build(photos, embedder)
    again = ShardedIndex.load(tmp_path / "shards")
    assert sorted(again.images.key) == expected.images.key.tolist()
    keys = expected.images.key.tolist()
    np.testing.assert_allclose(again._embeddings_of(keys), expected._embeddings_of(keys), atol=1e-6)
    assert again.remove([new, old[3]]) == 2 and len(again) == N - 3


def test_an_image_stays_in_the_shard_that_holds_it(photos: Path, embedder: Embedder) -> None:
    elsewhere, _ = SearchIndex.build(photos, embedder)  # all in the first, whatever their names say
    index = ShardedIndex([elsewhere, SearchIndex(photos, embedder.fingerprint)])
    for path in photos.iterdir():
        os.utime(path, ns=(1, 1))
        path.write_bytes(path.read_bytes() + b"\n")
    assert index.add(photos, embedder).changed == N
    assert [len(shard) for shard in index.shards] == [N, 0]


def test_shards_without_images_have_no_folder_until_they_do(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    index = ShardedIndex.create(photos, embedder.fingerprint, 40, "HNSW8")
    with pytest.raises(ValueError, match="There are no images to save"):
        index.save(tmp_path / "shards")
    index.add(photos, embedder)
    index.save(tmp_path / "shards")
    there = [path for path in shard_folders(tmp_path / "shards") if path.exists()]
    assert len(shard_folders(tmp_path / "shards")) == 40 and len(there) == sum(map(bool, map(len, index.shards)))
    loaded = ShardedIndex.load(tmp_path / "shards")
    assert len(loaded.shards) == 40 and loaded.index == loaded.shards[-1].index == "HNSW8"
    assert loaded.add(photos, embedder).unchanged == N
    shutil.rmtree(there[0])  # one is lost: its images are embedded again
    assert ShardedIndex.load(tmp_path / "shards").add(photos, embedder).added == len(
        [key for key in index.images.key if there[0].name == f"shard_{shard_number(key, 40)}_of_40"]
    )


def test_shards_that_have_lost_all_images_are_filled_again(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    index = _made(photos, embedder, 3)
    index.save(tmp_path / "shards")
    index.remove(index.images.path)
    index.save(tmp_path / "shards")
    index = ShardedIndex.load(tmp_path / "shards")
    assert len(index) == 0 and index.sync(photos, embedder).added == N
    index.save(tmp_path / "shards")
    assert len(ShardedIndex.load(tmp_path / "shards")) == N


def test_what_does_not_belong_together_is_told(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        ShardedIndex.load(tmp_path)
    _made(photos, embedder, 2).save(tmp_path / "shards")
    with pytest.raises(FileExistsError, match="holds 2 shards, expected 3 shards or nothing"):
        _made(photos, embedder, 3).save(tmp_path / "shards")
    random_index(tmp_path).save(tmp_path / "shards" / "shard_4_of_7")
    with pytest.raises(ValueError, match=r"holds shards of 2 and of 7, expected those of one index\."):
        ShardedIndex.load(tmp_path / "shards")
    random_index(tmp_path).save(tmp_path / "index")
    with pytest.raises(FileExistsError, match="holds an index that is one folder"):
        _made(photos, embedder, 2).save(tmp_path / "index")
    with pytest.raises(ValueError, match="another shard"):
        ShardedIndex([random_index(tmp_path), SearchIndex(tmp_path, embedder.fingerprint)])
    with pytest.raises(ValueError, match=r"A shard has root .*other' and grid 0, expected .* as in the others"):
        ShardedIndex([random_index(tmp_path), random_index(tmp_path / "other")])
    with pytest.raises(ValueError, match="n_shards is 0, expected a whole number from 1 to"):
        ShardedIndex.create(tmp_path, embedder.fingerprint, 0)
    with pytest.raises(ValueError, match="The index is empty"):
        ShardedIndex.create(photos, embedder.fingerprint, 2).search(np.ones((1, embedder.fingerprint.width)))


def test_no_shard_is_written_where_another_index_has_some(photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    """Of an index with few images, most shards have no folder."""
    few = ShardedIndex.create(photos, embedder.fingerprint, 3)
    some = [path for path in sorted(photos.iterdir()) if shard_number(path.name, 3) == 1]
    few.add(list_images(photos, photos)[lambda images: images.path.isin([path.name for path in some])], embedder)
    few.save(tmp_path / "shards")
    with pytest.raises(FileExistsError, match=rf"shard_1_of_3' holds an index of {len(some)} image"):
        _made(photos, embedder, 3).save(tmp_path / "shards")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["shard_1_of_3"]
