"""``oml-vit-ext info``"""

from __future__ import annotations

from helpers import ROOT
from helpers.command_line import fails, succeeds


def test_all_registries_are_listed_with_signatures():
    printed = succeeds("info")
    assert "* stir(extractor" in printed and "* stir_reranker(top_n" in printed, "OML's own list leaves these out"
    assert "  triplet_with_miner(" in printed and "* irt(weights" in printed
    assert "open-metric-learning" in printed and "CPU  " in printed


def test_weights_are_explained_or_refused():
    printed = succeeds("info", "--weights", "vit_small_patch16_224.dino")
    assert "vit_small_patch16_224" in printed and "width 384" in printed and "licence" in printed
    file = ROOT / "examples/demo_weights/vit_tiny_emoji.safetensors"
    assert "width 192" in succeeds("info", "--weights", str(file))
    assert "did you mean 'vit_small_patch16_224.dino'" in fails("info", "--weights", "vit_small_patch16_224.dyno")
