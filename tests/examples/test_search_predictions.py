"""Embeddings extracted on two nodes through OML's prediction pipeline, and an index of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import ROOT
from helpers.command_line import succeeds
from oml_vit_ext.retrieval import Embedder, SearchIndex, list_images

EXTRACTOR = {
    "name": "irt",
    "args": {
        "weights": str(ROOT / "examples/demo_weights/vit_tiny_emoji.safetensors"),
        "arch": "vit_tiny_r_s16_p8_224",
        "timm_args": {"img_size": 48, "patch_size": 2, "depth": 6},
    },
}


@pytest.fixture(scope="module")
def photos(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of seven pictures: an odd number, so that one node gets a picture twice."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((demo_slice / "images" / "noto").glob("*.jpg"))[:7]:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def predictions(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two nodes of one process each wrote, started as ``docs/howto/search.md`` says."""
    folder = tmp_path_factory.mktemp("nodes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, str(ROOT / "examples" / "predict_extractor.py"), "--config-name", "irt/predict_demo"),
        *("irt/variant=irt_o", f"pretrained={EXTRACTOR['args']['weights']}", f"data_dir={photos}", "bs=2"),
        *("accelerator=cpu", "devices=1", "num_workers=0", "hydra.run.dir=predictions"),
    ]
    place = {"PL_TRAINER_NUM_NODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    nodes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **place, "NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(text[-3000:] for text in printed)
    assert all(f"GLOBAL_RANK: {rank}, MEMBER: {rank + 1}/2" in printed[rank] for rank in range(2))
    return folder / "predictions" / "predictions.json"


def test_two_nodes_embed_every_image_as_one_process_does(predictions: Path, photos: Path) -> None:
    predicted = json.loads(predictions.read_text())
    assert sorted(Path(path).name for path in predicted) == sorted(path.name for path in photos.iterdir())
    transform = get_transforms_by_cfg({"name": "norm_resize_irt", "args": {"im_size": 48, "crop_size": 48}})
    embedder = Embedder(get_extractor_by_cfg(EXTRACTOR), transform, device="cpu")
    expected = embedder.embed_all([Path(path) for path in predicted])
    np.testing.assert_allclose(np.array(list(predicted.values())), expected, atol=1e-5)


def test_an_index_is_made_of_them(predictions: Path, photos: Path, tmp_path: Path) -> None:
    model = ["--config-name", "irt/predict_demo", "irt/variant=irt_o", f"pretrained={EXTRACTOR['args']['weights']}"]
    arguments = ["index", str(photos), "--to", str(tmp_path / "kept"), "--predictions", str(predictions), *model]
    assert "7 added" in succeeds(*arguments)
    index = SearchIndex.load(tmp_path / "kept")
    names = list_images(photos, photos).path
    hits = index.search_images([photos / name for name in names], index.embedder(device="cpu"), k=2)
    assert [row[0].path for row in hits] == names.tolist()
    assert all(row[0].distance < 1e-3 < row[1].distance for row in hits)
