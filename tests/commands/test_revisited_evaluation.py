"""``examples/evaluate_revisited.py`` on a miniature of the official folders."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oml.registry.transforms import get_transforms

from helpers import ROOT, miniature
from oml_vit_ext.datasets.revisited import distractor_paths
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.extractors.multi_scale import AtScales
from oml_vit_ext.retrieval import Embedder, evaluate_revisited, load_revisited, stored_chunks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature.revisited_with_distractors(tmp_path_factory.mktemp("data"))


def test_the_script_gives_the_figures_of_the_full_ranking(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    folder = data.parent
    extractor = IRTExtractor(None, arch="vit_tiny_patch16_224", timm_args={"depth": 1}).eval()
    torch.save(extractor.state_dict(), folder / "model.pth")
    arguments = [
        *(f"dataset_root={data.name}", "checkpoint=model.pth", "arch=vit_tiny_patch16_224", "+timm_args.depth=1"),
        *("side=32", "average_over_scales=[0.7071,1]", "num_workers=0", "accelerator=cpu", "hydra.run.dir=run"),
        *(f"distractors={data.name}/revisitop1m", "distractor_descriptors=kept"),
        *("hydra/job_logging=none", "hydra/hydra_logging=none"),  # no handlers for the tests after this one
    ]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", ["evaluate_revisited.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / "evaluate_revisited.py"), run_name="__main__")
    printed = capsys.readouterr().out
    scores = json.loads((folder / "run/revisited.json").read_text())
    assert "roxford5k: 3 queries, 19 images, 192 dimensions" in printed
    row = next(line for line in printed.splitlines() if line.startswith("medium"))
    assert f"{100 * scores['medium']['map']:.2f}" in row and "mP@10" in printed
    assert sum(map(len, stored_chunks(folder / "kept"))) == 7

    read = load_revisited(data, "roxford5k")
    transform = get_transforms("norm_resize_torch", im_size=32)
    embedder = Embedder(AtScales(extractor, [0.7071, 1]), transform)
    queries = embedder.embed_all([read.root / p for p in read.query_paths], read.query_boxes)
    images = [read.root / p for p in read.database_paths]
    images += [data / "revisitop1m" / p for p in distractor_paths(data / "revisitop1m")]
    rankings = np.argsort(-queries @ embedder.embed_all(images).T, axis=1)
    expected = evaluate_revisited(rankings, read.ground_truth)
    for level, values in expected.items():
        assert scores[level] == pytest.approx(values)
