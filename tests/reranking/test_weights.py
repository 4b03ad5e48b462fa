"""Weights of pairwise models: our own checkpoints and OML's, right ones and wrong ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.photos import ARGS, SIZE, small_model
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRSiamese


def save(state: dict, path: Path, prefix: str = "") -> Path:
    torch.save({"state_dict": {prefix + k: v for k, v in state.items()}, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
@pytest.mark.parametrize("k", [0, 2])
def test_own_checkpoint_comes_back(tmp_path, prefix: str, k: int):
    trained = small_model(join_layer=k)
    path = save(trained.state_dict(), tmp_path / "best.ckpt", prefix)
    loaded = STIRSiamese(IRTExtractor(None, **ARGS), [16], join_layer=k, weights=path).eval()
    x1, x2 = torch.randn(2, 2, 3, SIZE, SIZE).unbind(0)
    with torch.no_grad():
        assert torch.equal(loaded(x1, x2), trained(x1, x2))


def test_another_join_layer_is_told(tmp_path, caplog):
    path = save(small_model(join_layer=0).state_dict(), tmp_path / "best.ckpt")
    with caplog.at_level(logging.WARNING):
        STIRSiamese(IRTExtractor(None, **ARGS), [16], join_layer=2, weights=path)
    assert "trained with join_layer=0 and are used with join_layer=2" in caplog.text


def test_another_arch_is_one_clear_error(tmp_path):
    path = save(small_model().state_dict(), tmp_path / "best.ckpt")
    with pytest.raises(RuntimeError, match=r"head is 48 -> 16 -> 1, expected 192 -> 16 -> 1.*another arch"):
        STIRSiamese(IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 2}), [16], weights=path)
    deeper = {**ARGS, "timm_args": {**ARGS["timm_args"], "depth": 5}}
    with pytest.raises(RuntimeError, match=r"do not fit arch 'vit_tiny_patch16_224'.*depth 4.*expected.*depth 5"):
        STIRSiamese(IRTExtractor(None, **deeper), [16], weights=path)


def test_a_first_stage_is_no_pairwise_model(tmp_path):
    path = save(IRTExtractor(None, **ARGS).state_dict(), tmp_path / "first.ckpt", "model.")
    with pytest.raises(RuntimeError, match=r"hold no pairwise model.*extractor\.args\.weights"):
        STIRSiamese(IRTExtractor(None, **ARGS), [16], weights=path)


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        STIRSiamese(IRTExtractor(None, **ARGS), weights=tmp_path / "none.ckpt")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(save(nn.Linear(9, 9).state_dict(), tmp_path / "whole.ckpt").read_bytes()[:300])
    with pytest.raises(RuntimeError, match=r"broken\.ckpt"):
        STIRSiamese(IRTExtractor(None, **ARGS), weights=broken)


@pytest.mark.parametrize("wrap", ["head._orig_mod.", "extractor._orig_mod.", "extractor.backbone._orig_mod."])
def test_a_part_that_was_compiled(tmp_path, wrap: str):
    trained = small_model()
    plain = wrap.replace("_orig_mod.", "")
    state = {k.replace(plain, wrap, 1) if k.startswith(plain) else k: v for k, v in trained.state_dict().items()}
    assert state.keys() != trained.state_dict().keys()
    loaded = STIRSiamese(IRTExtractor(None, **ARGS), [16], weights=save(state, tmp_path / "best.ckpt", "model.module."))
    torch.testing.assert_close(loaded.state_dict(), trained.state_dict())


def test_a_head_without_one_of_its_parts(tmp_path):
    state = {k: v for k, v in small_model().state_dict().items() if k != "head.0.bias"}
    with pytest.raises(RuntimeError, match=r"do not fit this pairwise model.*Missing: head\.0\.bias"):
        STIRSiamese(IRTExtractor(None, **ARGS), [16], weights=save(state, tmp_path / "best.ckpt"))
