"""Tokens of the last blocks, against timm's blocks called one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors.backbone import build_backbone
from oml_vit_ext.extractors.layer_tokens import layer_tokens

MODELS: dict[str, dict[str, Any]] = {
    "plain": TINY_PLAIN,
    "hybrid": TINY_HYBRID,
    "distilled": {"arch": "deit_tiny_distilled_patch16_224", "timm_args": {"img_size": 32, "depth": 2}},
    "eva": {"arch": "eva02_tiny_patch14_224", "timm_args": {"img_size": 28, "depth": 2}},
}


def block_by_block(backbone: Any, images: Tensor) -> list[Tensor]:
    """All tokens behind every block, without forward_intermediates."""
    x = backbone._pos_embed(backbone.patch_embed(images))
    x, rope = x if isinstance(x, tuple) else (x, None)
    x = backbone.norm_pre(x)
    states = []
    for block in backbone.blocks:
        x = block(x) if rope is None else block(x, rope=rope)
        states.append(x)
    return states


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_last_blocks_in_order(name: str, n_layers: int):
    backbone: nn.Module = build_backbone(**MODELS[name]).eval()
    side = MODELS[name]["timm_args"]["img_size"]
    images = torch.randn(2, 3, side, 2 * side)
    tokens = layer_tokens(backbone, images, n_layers)
    states = block_by_block(backbone, images)[-n_layers:]
    prefix = 2 if name == "distilled" else 1
    assert len(tokens.prefix) == len(tokens.patches) == n_layers
    for got_prefix, got_patches, state in zip(tokens.prefix, tokens.patches, states, strict=True):
        torch.testing.assert_close(got_prefix, state[:, :prefix])
        torch.testing.assert_close(got_patches, state[:, prefix:])
    assert tokens.grid[1] == 2 * tokens.grid[0]
    assert tokens.patches[0].shape[1] == tokens.grid[0] * tokens.grid[1]


@pytest.mark.parametrize("arch", ["vit_base_patch16_gap_224", "eva02_tiny_patch14_224"])
def test_a_model_without_prefix_tokens_has_patches_only(arch: str):
    timm_args = {"depth": 1, "class_token": False, "img_size": 28 if "14" in arch else 32}
    tokens = layer_tokens(build_backbone(arch, timm_args=timm_args), torch.randn(1, 3, 56, 56), 1)
    assert tokens.prefix == [] and len(tokens.patches) == 1


@pytest.mark.parametrize("size", [(33, 57), (1, 100), (47, 48)])
def test_odd_sizes_give_a_grid_that_fits(size: tuple[int, int]):
    """The stem of a hybrid rounds such sizes up, timm's grid rounds them down."""
    tokens = layer_tokens(build_backbone(**TINY_HYBRID).eval(), torch.randn(1, 3, *size), 1)
    assert tokens.grid == (-(-size[0] // 8), -(-size[1] // 8))
    assert tokens.patches[0].shape[1] == tokens.grid[0] * tokens.grid[1]
