"""Checkpoints of an extractor and its moving average: both come back, and each serves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import ExtractorWithMomentum, IRTExtractor
from oml_vit_ext.extractors.momentum_weights import without_average


def _model(**arguments) -> ExtractorWithMomentum:
    return ExtractorWithMomentum(IRTExtractor(None, **TINY_PLAIN), 0.9, **arguments)


def _state_of(extractor: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in extractor.state_dict().items()}


@pytest.fixture()
def checkpoint(tmp_path: Path) -> tuple[Path, ExtractorWithMomentum]:
    """A file with the keys of OML's checkpoints, and the model in it."""
    model = _model()
    with torch.no_grad():
        model.extractor.backbone.cls_token += 1.0
    state = {f"model.{k}": v for k, v in model.state_dict().items()} | {"criterion.memory.position": torch.tensor(0)}
    torch.save({"state_dict": state, "folder": tmp_path}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt", model.eval()


def test_a_checkpoint_gives_both_back(checkpoint):
    path, model = checkpoint
    torch.testing.assert_close(_state_of(_model(weights=path)), _state_of(model))


def test_the_plain_extractor_finds_itself_in_a_checkpoint_of_both(checkpoint, caplog: pytest.LogCaptureFixture):
    path, model = checkpoint
    with caplog.at_level("INFO"):
        plain = IRTExtractor(path, **TINY_PLAIN)
    torch.testing.assert_close(_state_of(plain), _state_of(model.extractor))
    assert "of the extractor and its moving average, the extractor is used" in caplog.text


def test_the_copy_alone_serves_the_plain_extractor(checkpoint, tmp_path: Path):
    _, model = checkpoint
    torch.save(model.momentum_extractor.state_dict(), tmp_path / "copy.pth")
    torch.testing.assert_close(
        _state_of(IRTExtractor(tmp_path / "copy.pth", **TINY_PLAIN)), _state_of(model.momentum_extractor)
    )


def test_files_that_do_not_fit(checkpoint, tmp_path: Path):
    path, model = checkpoint
    torch.save({f"model.{k}": v for k, v in model.extractor.state_dict().items()}, tmp_path / "plain.pth")
    with pytest.raises(RuntimeError, match=r"hold no moving average .*extractor\.args\.extractor\.args\.weights"):
        _model(weights=tmp_path / "plain.pth")
    deeper = {**TINY_PLAIN, "timm_args": {**TINY_PLAIN["timm_args"], "depth": 3}}
    with pytest.raises(RuntimeError, match=r"do not fit this extractor and its moving average\. .* and 16 more; unexp"):
        ExtractorWithMomentum(IRTExtractor(None, **deeper), weights=path)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        _model(weights=tmp_path / "nothing.ckpt")


@pytest.mark.parametrize("prefix", ["", "model.", "module.extractor."])
def test_both_are_found_under_any_prefix(checkpoint, tmp_path: Path, prefix: str):
    _, model = checkpoint
    torch.save({prefix + name: tensor for name, tensor in model.state_dict().items()}, tmp_path / "x.pth")
    torch.testing.assert_close(_state_of(_model(weights=tmp_path / "x.pth")), _state_of(model), atol=0, rtol=0)


def test_only_a_file_of_both_loses_its_average(caplog: pytest.LogCaptureFixture):
    one = torch.ones(1)
    both = {"model.extractor.a": one, "model.momentum_extractor.a": one, "model.momentum_extractor.b": one, "loss": one}
    with caplog.at_level("INFO"):
        assert list(without_average(both, Path("x.ckpt"))) == ["model.extractor.a", "loss"]
    assert "weights x.ckpt: of the extractor and its moving average, the extractor is used" in caplog.text
    elsewhere = {"extractor.a": one, "x.momentum_extractor.a": one}
    for other in ({"extractor.a": one}, {"momentum_extractor.a": one}, elsewhere):
        assert without_average(other, Path("x.ckpt")) == other
