"""Small files that announce much, deep ones, and lists that lead elsewhere: refused before memory is taken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from scipy.io import savemat

from helpers import TINY_PLAIN
from helpers.random_index import random_index
from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.common.mat_file import read_struct
from oml_vit_ext.datasets.join import join
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.checkpoints import read_state_dict
from oml_vit_ext.images.sizes import look_at_images, read_image_sizes
from oml_vit_ext.losses import FeatureMemory
from oml_vit_ext.oml_patches.checkpoint_files import read_checkpoint
from oml_vit_ext.reranking.fusion import fusion_of
from oml_vit_ext.retrieval import SearchIndex, ShardedIndex, open_index, retrieve
from oml_vit_ext.retrieval.index.storage import MANIFEST, _checksum_text


def refused(file: Path, read: Callable[[Path], Any], says: str, error: type[Exception] = RuntimeError) -> None:
    with pytest.raises(error, match=says) as told:
        read(file)
    assert str(file) in str(told.value)


@pytest.mark.parametrize("read", [read_state_dict, read_checkpoint])
def test_a_checkpoint_that_unpacks_to_a_hundred_times_its_size(tmp_path: Path, read: Callable[[Path], Any]):
    plain, bomb = tmp_path / "plain.ckpt", tmp_path / "bomb.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1_000_000)}, "optimizer_states": [], "loops": {}}, plain)
    assert read(plain)
    with zipfile.ZipFile(plain) as parts, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as smaller:
        for part in parts.infolist():
            smaller.writestr(part.filename, parts.read(part))
    assert bomb.stat().st_size * 100 < plain.stat().st_size
    refused(bomb, read, "parts are compressed")


def test_one_number_that_stands_for_a_terabyte(tmp_path: Path):
    file = tmp_path / "w.pth"
    torch.save({"memory.features": torch.zeros(1).expand(10**9, 384), "few": torch.zeros(1).expand(5)}, file)
    refused(file, read_state_dict, r"hold 'memory.features' of shape \(1000000000, 384\), expected no more than")
    state = {
        "features": torch.zeros(1).expand(10**9, 384),
        "labels": torch.zeros(1, dtype=torch.int64).expand(10**9),
        **{name: torch.tensor(0) for name in ("position", "n_calls")},
    }
    with pytest.raises(RuntimeError, match=r"holds fewer numbers than features of shape \(1000000000, 384\)"):
        FeatureMemory(10).load_state_dict(state)


def test_a_safetensors_header_of_gigabytes(tmp_path: Path):
    file = tmp_path / "w.safetensors"
    for n_bytes in (2**33, 2**62):
        file.write_bytes(n_bytes.to_bytes(8, "little") + b'{"w":')
        refused(file, read_state_dict, "is not a whole safetensors file")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9, 384], "data_offsets": [0, 4 * 384 * 10**9]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(file, read_state_dict, "is not a whole safetensors file")


def test_arrays_of_a_jax_model_that_unpack_to_gigabytes(tmp_path: Path):
    file = tmp_path / "vit.npz"
    np.savez_compressed(file, embedding=np.zeros(100_000_000, np.int8))
    assert file.stat().st_size < 1_000_000
    refused(file, lambda path: IRTExtractor(str(path), **TINY_PLAIN), r"hold \d+ bytes of arrays, expected at most")
    file.write_bytes(b"no archive")
    refused(file, lambda path: IRTExtractor(str(path), **TINY_PLAIN), "cannot be read as a file of arrays")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_matlab_files_get_no_more_than_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import oml_vit_ext.common.mat_file as module

    file = tmp_path / "annos.mat"
    savemat(file, {"annotations": np.array([("a", 1)], dtype=[("path", object), ("class", object)])})
    assert read_struct(file, "annotations") == {"path": ["a"], "class": [1]}
    few = tmp_path / "mat_file.py"
    few.write_text(Path(module.__file__).read_text().replace("8 * 2**30", "2**20"))
    monkeypatch.setattr(module, "__file__", str(few))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        read_struct(file, "annotations")


@pytest.mark.parametrize("depth", [500, 900, 100_000])
def test_a_config_as_deep_as_can_be(tmp_path: Path, depth: int):
    random_index(tmp_path).save(tmp_path / "index")
    file = tmp_path / "index" / MANIFEST
    content = json.loads(file.read_text())["content"]
    text = json.dumps({"content": {**content, "config": {"extractor": "HERE"}}, "checksum": "?"})
    deep = "[" * depth + "]" * depth
    text = text.replace('"HERE"', deep)
    with contextlib.suppress(RecursionError):
        text = text.replace("?", _checksum_text(json.loads(text)["content"]))
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        SearchIndex.load(tmp_path / "index")
    fusion = tmp_path / "fusion.json"
    fusion.write_text(deep)
    refused(fusion, lambda path: fusion_of(path), "fusion", ValueError)


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg"])
def test_dataframes_that_are_joined_stay_in_their_folders(tmp_path: Path, path: str):
    frame = pd.DataFrame({"label": [0, 1], "path": ["a.jpg", path], "split": ["train", "validation"]})
    frame = frame.assign(is_query=[None, True], is_gallery=[None, True])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "df.csv", index=False)
    with pytest.raises(ValueError, match=re.escape(f"lists {path!r}, expected paths below that folder")):
        join(tmp_path / "one" / "df.csv", tmp_path / "two" / "df.csv", tmp_path / "both.csv")


def test_sizes_that_no_image_has_are_read_again(tmp_path: Path):
    from helpers.mean_colour import paint

    paint(tmp_path / "a.png", (1, 2, 3), (8, 6))
    cache = tmp_path / "sizes.csv"
    assert read_image_sizes(["a.png"], tmp_path, cache=cache, verbose=False).width.tolist() == [8]
    pd.read_csv(cache).assign(width=-3, height=0).to_csv(cache, index=False)
    found = read_image_sizes(["a.png"], tmp_path, cache=cache, verbose=False)
    assert (found.width.tolist(), found.height.tolist()) == ([8], [6])


def test_a_billion_neighbours_of_a_few():
    found = retrieve(embeddings_of(), labelled(frame()), n_items=10**9)
    assert max(map(len, found.retrieved_ids)) == len(frame()) - 1


def test_tags_of_yaml_run_nothing(tmp_path: Path):
    """Configs are read by OmegaConf, as Hydra does; what they build is up to them: a config is trusted."""
    file, made = tmp_path / "config.yaml", tmp_path / "made"
    file.write_text(f"criterion: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        OmegaConf.load(file)
    assert not made.exists()


def test_links_in_the_place_of_the_files_of_an_index_are_not_removed_through(tmp_path: Path):
    """A save removes names of its own alone, and of a link the link."""
    random_index(tmp_path).save(tmp_path / "index")
    victim = tmp_path / "victim.npy"
    victim.write_text("mine")
    os.symlink(victim, tmp_path / "index" / "descriptors-000000-000000.npy")
    index = SearchIndex.load(tmp_path / "index")
    index.remove(["000000.png"])
    index.save()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("reads", ["weights", "lightning"])
def test_parts_that_stand_in_each_other_again_and_again(tmp_path: Path, reads: str):
    """Without a limit, looking for tensors or filling in arrays would take years."""
    from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

    file = tmp_path / "w.ckpt"
    dicts: Any = {"x": 1}
    tuples: Any = (1, 2)
    for _ in range(40):
        dicts, tuples = {"a": dicts, "b": dicts}, (tuples, tuples)
    torch.save(dicts if reads == "weights" else {"state": tuples}, file)
    read = read_state_dict if reads == "weights" else TorchCheckpointIO().load_checkpoint
    refused(file, read, "stand in each other so often")


def test_a_small_matlab_file_of_a_long_list(tmp_path: Path):
    """The process that reads it has its limit of memory; what it sends would be taken by the one that asked."""
    file = tmp_path / "annos.mat"
    lists = np.empty((1, 1), dtype=[("path", object), ("class", object)])
    lists[0, 0] = ("a", np.zeros(6_000_000, np.uint8))
    savemat(file, {"annotations": lists}, do_compression=True)
    assert file.stat().st_size < 10_000
    refused(file, lambda path: read_struct(path, "annotations"), "it holds 18.* characters, expected", ValueError)


@pytest.mark.parametrize("n", [10**9, 10**100])
def test_a_billion_shards(tmp_path: Path, n: int):
    random_index(tmp_path).save(tmp_path / "index" / f"shard_0_of_{n}")
    refused(tmp_path / "index", open_index, "The number of shards in .* expected a whole number from 1 to", ValueError)
    with pytest.raises(ValueError, match="n_shards is 1000000000, expected"):
        ShardedIndex.create(tmp_path, random_index(tmp_path, n=0).fingerprint, 10**9)


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path: Path):
    """Archives may hold pipes, and links to devices that never end."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("Windows has no such files")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for found in look_at_images(tmp_path, ["pipe.jpg", "zero.jpg"], verbose=False):
        assert isinstance(found, str) and "it is a folder, a pipe, a socket or a device" in found
