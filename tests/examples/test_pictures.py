"""The example scripts with pictures, with tiny models on a slice of the bundled drawings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import ROOT
from helpers.configs import composed
from helpers.small_reranker import TIMM_ARGS, small_reranker
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor


def config(name: str, demo_slice: Path, *overrides: str):
    return composed(name, f"dataset_root={demo_slice}", *overrides)


def test_attention_of_the_hybrid(demo_slice: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from show_attention import show

    model = HybridViTExtractor(
        None, "vit_tiny_r_s16_p8_224", n_layers=2, embed_dim=16, dilations=(1, 2, 3), timm_args=TIMM_ARGS
    )
    torch.save(model.state_dict(), "model.pth")
    small = ("hybrid.timm_args.depth=2", "multi_layer=2", "embed_dim=16")
    cfg = config("dtop/validate_demo", demo_slice, "checkpoint=model.pth", *small, "+n_queries=2", "+top=3")
    show(cfg)
    assert f"attention.png in {in_tmp_path}" in capsys.readouterr().out
    width, height = Image.open("attention.png").size
    rows = 2 * 3  # two queries: pictures, last_block, local_branch
    assert height > 100 * rows and 400 < width < height
    assert not list(in_tmp_path.glob("part_*"))


def test_attention_of_another_extractor(demo_slice: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from show_attention import default_kinds

    assert default_kinds(IRTExtractor(None, "vit_tiny_r_s16_p8_224", timm_args=TIMM_ARGS)) == ["last_block", "rollout"]


def test_a_reranker_before_and_after(demo_slice: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from show_reranking import show

    show(config("stir/validate_reranker_demo", demo_slice, *small_reranker(), "+n_queries=2"))
    printed = capsys.readouterr().out
    found = re.search(
        r"changed for (\d+) of (\d+) queries: (\d+) became right, (\d+) became wrong, (\d+) neit", printed
    )
    changed, queries, *ways = map(int, found.groups())
    assert 0 < changed == sum(ways) <= queries, "an untrained re-ranker shuffles"
    assert f"strips.png, cross_attention.png and budget.png in {in_tmp_path}" in printed
    for name in ("strips.png", "cross_attention.png"):
        width, height = Image.open(name).size
        assert height > 200 and width > 2 * height
    assert min(Image.open("budget.png").size) > 300
    assert not list(in_tmp_path.glob("part_*"))
