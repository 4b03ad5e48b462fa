"""Files for hybrid_vit: a bare transformer, a whole extractor, and those that do not fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import ExtractorWithMomentum, HybridViTExtractor, IRTExtractor

IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def build(weights: Path | None = None, model: dict[str, Any] = TINY_HYBRID, **arguments: Any) -> HybridViTExtractor:
    return HybridViTExtractor(weights, **{"n_layers": 2, "embed_dim": 32, **model, **arguments})


@pytest.fixture(scope="module")
def trained_hybrid() -> HybridViTExtractor:
    """Stands for a trained model, batch norms included."""
    torch.manual_seed(7)
    extractor = build().eval()
    for module in extractor.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean)
    return extractor


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize("name", ["plain.pth", "plain.safetensors", "oml.ckpt", "parallel.pt", "momentum.ckpt"])
def test_a_file_of_the_whole_extractor(trained_hybrid: HybridViTExtractor, tmp_path: Path, name: str, caplog):
    path, state = tmp_path / name, trained_hybrid.state_dict()
    if name.endswith("safetensors"):
        save_file(state, path)
    elif name == "momentum.ckpt":
        torch.save({"state_dict": prefixed(ExtractorWithMomentum(trained_hybrid).state_dict(), "model.")}, path)
    else:
        prefix = {"plain.pth": "", "oml.ckpt": "model.", "parallel.pt": "module."}[name]
        extra = {"criterion.weight": torch.ones(9, 32)} if name == "oml.ckpt" else {}
        torch.save({"state_dict": {**prefixed(state, prefix), **extra}, "folder": tmp_path}, path)
    with caplog.at_level(logging.INFO):
        loaded = build(path).eval()
    torch.testing.assert_close(loaded(IMAGES), trained_hybrid(IMAGES))
    assert "start at random" not in caplog.text
    if name == "oml.ckpt":
        assert "not part of the extractor: criterion.weight" in caplog.text


@pytest.mark.parametrize("prefix", ["", "model.backbone.", "module."])
def test_a_file_of_the_transformer_alone(trained_hybrid: HybridViTExtractor, tmp_path: Path, prefix: str, caplog):
    torch.save(prefixed(trained_hybrid.backbone.state_dict(), prefix), tmp_path / "vit.pth")
    with caplog.at_level(logging.INFO):
        loaded = build(tmp_path / "vit.pth")
    torch.testing.assert_close(loaded.backbone.state_dict(), trained_hybrid.backbone.state_dict())
    assert "a transformer alone; the branches start at random" in caplog.text


def test_position_embeddings_of_a_whole_file_are_resampled(trained_hybrid: HybridViTExtractor, tmp_path: Path, caplog):
    torch.save(trained_hybrid.state_dict(), tmp_path / "whole.pth")
    with caplog.at_level(logging.INFO):
        build(tmp_path / "whole.pth", timm_args={**TINY_HYBRID["timm_args"], "img_size": 64})
    assert "resampled from 6x6 to 8x8" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"branches": "global", "enhanced_locality": False},
            r"the file holds global_branch and local_branch with enhanced locality, widths 384 into global_branch, 384 "
            r"into local_branch, embed_dim 32, expected global_branch without .*unexpected: local_branch\.conv\.bias",
        ),
        ({"n_layers": 1}, r"of another shape: global_branch\.fc\.weight, local_branch\.conv\.weight"),
        ({"embed_dim": 16}, r"embed_dim 32, expected .*embed_dim 16.*of another shape: descriptor_head\.1\.weight"),
        ({"enhanced_locality": False}, r"expected .* without enhanced locality.*unexpected: local_branch\.locality"),
        ({"timm_args": {**TINY_HYBRID["timm_args"], "depth": 3}}, "depth 2.* expected a ViT of width 192, depth 3"),
    ],
)
def test_a_whole_file_of_other_switches(trained_hybrid, tmp_path: Path, arguments: dict, message: str):
    torch.save(trained_hybrid.state_dict(), tmp_path / "whole.pth")
    with pytest.raises(RuntimeError, match=message):
        build(tmp_path / "whole.pth", **arguments)


def test_a_whole_file_without_one_of_its_parts(trained_hybrid: HybridViTExtractor, tmp_path: Path):
    state = {k: v for k, v in trained_hybrid.state_dict().items() if not k.startswith("global_branch.")}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(RuntimeError, match=r"Missing: global_branch\.fc\.bias, global_branch\.fc\.weight; unexpected:"):
        build(tmp_path / "part.pth")


def test_irt_takes_the_transformer_of_a_whole_file_and_says_so(
    trained_hybrid: HybridViTExtractor, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    torch.save({"state_dict": prefixed(trained_hybrid.state_dict(), "model.")}, tmp_path / "whole.ckpt")
    with caplog.at_level(logging.WARNING):
        loaded = IRTExtractor(tmp_path / "whole.ckpt", **TINY_HYBRID)
    torch.testing.assert_close(loaded.backbone.state_dict(), trained_hybrid.backbone.state_dict())
    assert "a whole hybrid_vit (backbone, global_branch, local_branch, descriptor_head)" in caplog.text
    assert "only its backbone is used" in caplog.text


def test_irt_of_another_arch_refuses_a_whole_file(trained_hybrid: HybridViTExtractor, tmp_path: Path):
    torch.save(trained_hybrid.state_dict(), tmp_path / "whole.pth")
    with pytest.raises(RuntimeError, match="the file holds a ViT of width 192, depth 2, patch 2 behind a convolution"):
        IRTExtractor(tmp_path / "whole.pth", **TINY_PLAIN)


def test_a_file_that_holds_something_else(tmp_path: Path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(RuntimeError, match=r"hold no vision transformer .* found bias, weight"):
        build(tmp_path / "linear.pth")


PARTS = ["backbone", "local_branch", "descriptor_head", "backbone.blocks.0"]


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_fsdp_wrapped_module"])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_was_wrapped(trained_hybrid: HybridViTExtractor, tmp_path: Path, part: str, wrapper: str, caplog):
    old, new = f"{part}.", f"{part}.{wrapper}."
    state = {k.replace(old, new, 1) if k.startswith(old) else k: v for k, v in trained_hybrid.state_dict().items()}
    torch.save({"state_dict": prefixed(state, "model.module.")}, tmp_path / "wrapped.ckpt")
    loaded = build(tmp_path / "wrapped.ckpt").eval()
    torch.testing.assert_close(loaded(IMAGES), trained_hybrid(IMAGES))
    assert not caplog.records


def test_random_branches_are_a_warning(trained_hybrid: HybridViTExtractor, tmp_path: Path, caplog):
    torch.save(trained_hybrid.backbone.state_dict(), tmp_path / "vit.pth")
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "vit.pth")
    assert "a transformer alone; the branches start at random" in caplog.text


@pytest.mark.parametrize("left", ["global_branch", "descriptor_head"])
def test_branches_without_their_transformer_are_refused(trained_hybrid: HybridViTExtractor, tmp_path: Path, left: str):
    state = {k: v for k, v in trained_hybrid.state_dict().items() if k.startswith(left)}
    torch.save({**state, **prefixed(trained_hybrid.backbone.state_dict(), "encoder.")}, tmp_path / "odd.pth")
    with pytest.raises(RuntimeError, match="Missing: "):
        build(tmp_path / "odd.pth")


def test_two_whole_extractors_in_a_file(trained_hybrid: HybridViTExtractor, tmp_path: Path):
    state = trained_hybrid.state_dict()
    torch.save({**prefixed(state, "one."), **prefixed(state, "two.")}, tmp_path / "two.pth")
    with pytest.raises(RuntimeError, match=r"hold 2 hybrid_vit, under one\., two\.: expected one"):
        build(tmp_path / "two.pth")


def test_the_momentum_extractor_reads_wrapped_parts(tmp_path: Path):
    trained = ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN))
    state = {k.replace("backbone.", "backbone._orig_mod."): v for k, v in trained.state_dict().items()}
    torch.save({"state_dict": prefixed(state, "model.module.")}, tmp_path / "momentum.ckpt")
    loaded = ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN), weights=tmp_path / "momentum.ckpt")
    torch.testing.assert_close(loaded.state_dict(), trained.state_dict())
