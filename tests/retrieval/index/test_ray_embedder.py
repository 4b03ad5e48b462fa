"""Embeddings on a real Ray cluster of two nodes of this machine, one of which is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers import TINY_PLAIN
from helpers.command_line import succeeds
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.retrieval import Embedder, MilvusIndex, RayEmbedder, SearchIndex, ShardedIndex, open_index
from oml_vit_ext.retrieval.index import ray_embedder

N = 24
INSIDE = "OML_VIT_EXT_TEST_WITH_RAY"
in_a_process_of_its_own = pytest.mark.skipif(
    INSIDE not in os.environ, reason="runs in the process that test_on_a_cluster starts: a driver of Ray leaves threads"
)


def test_on_a_cluster() -> None:
    """Threads that Ray leaves behind would stop other tests of this process from starting loader processes."""
    pytest.importorskip("ray", reason="needs pip install 'oml-vit-ext[ray]'")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "shards_filled or command_fills",
        __file__,
    ]
    done = subprocess.run(
        command, env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="needs pip install 'oml-vit-ext[ray]'")
    from ray.cluster_utils import Cluster

    # Workers import this package and the helpers of the tests.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / f"{i:02d}'.png")
    os.rename(root / "00'.png", os.fsdecode(os.fsencode(root) + b"/\xff.png"))  # no UTF-8
    (root / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(IRTExtractor(weights=None, **TINY_PLAIN).backbone.state_dict(), weights)
    return {
        "extractor": {"name": "irt", "args": {"weights": str(weights), **TINY_PLAIN}},
        "transforms": {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}},
    }


@in_a_process_of_its_own
def test_shards_filled_on_a_cluster_that_loses_a_machine_and_is_interrupted_are_the_index_made_here(
    cluster: Any, photos: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected, report = SearchIndex.build(photos, Embedder.from_config(**parts))
    assert report.added == N and len(report.broken) == 1
    second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    embedder = RayEmbedder.from_config(**parts, address=cluster.address, workers=2, block_size=2)
    given = ray_embedder._embedded
    n_blocks = 0

    def one_machine_less(block: Any) -> Any:
        nonlocal n_blocks
        n_blocks += 1
        if n_blocks == 2:
            cluster.remove_node(second, allow_graceful=False)
        if n_blocks == 10:
            raise KeyboardInterrupt
        return given(block)

    monkeypatch.setattr(ray_embedder, "_embedded", one_machine_less)
    index = ShardedIndex.create(photos, embedder.fingerprint, 3, config=embedder.config)
    with pytest.raises(KeyboardInterrupt):
        index.add(photos, embedder, part_size=7, after_part=lambda: index.save(tmp_path / "shards", finish=False))
    with pytest.warns(UserWarning, match="half-finished"):
        found = ShardedIndex.load(tmp_path / "shards")
    n_kept = len(found)
    assert 7 <= n_kept < N and found.images.key.is_unique

    # It goes on where it was, on the machine that is left: nothing is embedded again.
    monkeypatch.setattr(ray_embedder, "_embedded", given)
    embedder.workers = 1
    report = found.add(photos, embedder)
    assert (report.added, report.unchanged) == (N - n_kept, n_kept)
    assert [path for path, _ in report.broken] == ["broken.png"]
    found.save(tmp_path / "shards")
    found = ShardedIndex.load(tmp_path / "shards")
    assert sorted(found.images.key) == sorted(expected.images.key), "each image exactly once"
    keys = expected.images.key.tolist()
    np.testing.assert_allclose(found._embeddings_of(keys), expected._embeddings_of(keys), atol=1e-5)


@in_a_process_of_its_own
def test_the_command_fills_a_collection_on_a_cluster(
    cluster: Any, photos: Path, parts: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("milvus_lite", reason="needs pip install 'oml-vit-ext[milvus]'")
    (photos / "broken.png").unlink()
    expected, _ = SearchIndex.build(photos, Embedder.from_config(**parts))
    place = str(tmp_path / "kept.db")
    MilvusIndex.create(place, photos, expected.fingerprint, config=expected.config).close()
    on_ray = ["--engine", "ray", "--address", cluster.address, "--save-every", "9"]
    assert f"{N} added" in succeeds("index", str(photos), "--to", place, *on_ray)
    (photos / "05'.png").unlink()
    assert "1 removed" in succeeds("sync", str(photos), "--index", place, *on_ray)
    kept = open_index(place)
    assert set(kept.images.key) == set(expected.images.key) - {"05'.png"}
    kept.close()


def test_a_cluster_that_is_not_there_and_settings_that_cannot_be(parts: dict[str, Any]) -> None:
    pytest.importorskip("ray", reason="needs pip install 'oml-vit-ext[ray]'")
    with pytest.raises(ValueError, match=r"workers is 0, expected at least 1\."):
        RayEmbedder.from_config(**parts, workers=0)
    built = Embedder.from_config(**parts)
    with pytest.raises(ValueError, match=r"config is None, expected"):
        RayEmbedder(built.extractor, built.transform)


def test_without_ray_the_extra_is_named(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'oml-vit-ext\[ray\]'"):
        RayEmbedder.from_config(**parts)
