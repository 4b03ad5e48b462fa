"""What weights are."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import ROOT
from oml_vit_ext.commands.weights_facts import facts_of
from oml_vit_ext.extractors import IRTExtractor


def test_a_file_names_its_transformer_and_architectures_that_fit(tmp_path: Path):
    import torch

    file = tmp_path / "model.pth"
    torch.save(IRTExtractor(None, arch="deit_tiny_patch16_224").state_dict(), file)
    facts = facts_of(str(file))
    assert facts["transformer"].endswith("width 192, depth 12, patch 16") and "deit_tiny_patch16_224" in facts["arch"]
    assert str(file) in facts["config"]


def test_the_bundled_file_is_described():
    facts = facts_of(str(ROOT / "examples/demo_weights/vit_tiny_emoji.safetensors"))
    assert facts["kind"] == "float16" and "width 192, depth 6" in facts["transformer"]


def test_a_tag_says_input_and_licence():
    facts = facts_of("deit_small_patch16_224.fb_in1k")
    assert facts["embedding"] == "384 numbers" and facts["input"].startswith("224 px") and facts["licence"]


def test_what_is_no_transformer_is_refused(tmp_path: Path):
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match="transformer"):
        facts_of(str(tmp_path / "x.pth"))
