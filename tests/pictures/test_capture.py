"""The attention of blocks while a model runs; the model is left as it was."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from helpers import TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.pictures.capture import captured_attention


def plain_irt() -> IRTExtractor:
    """Its attention is far from even: a random transformer's own would compare equal to anything."""
    model = IRTExtractor(weights=None, **TINY_PLAIN).eval()
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.attn.qkv.weight.mul_(10)
    return model


def written_out(block: nn.Module, tokens: Tensor) -> Tensor:
    """Mean over the heads of softmax(q k^T / sqrt(d)), one head and one row at a time."""
    qkv = block.attn.qkv(block.norm1(tokens))
    width, heads = tokens.shape[-1], block.attn.num_heads
    d = width // heads
    total = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1])
    for h in range(heads):
        q, k = qkv[..., h * d : (h + 1) * d], qkv[..., width + h * d : width + (h + 1) * d]
        for row in range(tokens.shape[1]):
            products = torch.stack([(q[:, row] * k[:, column]).sum(-1) for column in range(tokens.shape[1])], dim=-1)
            total[:, row] += torch.softmax(products / d**0.5, dim=-1) / heads
    return total


def test_every_run_of_a_block_adds_its_attention():
    first, second = plain_irt().backbone.blocks
    a, b = torch.randn(2, 5, 192), torch.randn(1, 3, 192)
    with torch.no_grad():
        with captured_attention([first, second]) as captured:
            after = first(a)
            second(after)
            first(b)
        expected = [written_out(first, a), written_out(second, after), written_out(first, b)]
        first(a)
    assert len(captured) == 3, "nothing is added after the context"
    for found, plain in zip(captured, expected, strict=True):
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(found.sum(dim=-1), torch.ones(found.shape[:2]))
    assert captured[0].std() > 0.05


def test_the_model_computes_the_same_meanwhile():
    model, images = plain_irt(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), captured_attention(model.backbone.blocks):
        inside = model(images)
    torch.testing.assert_close(inside, model(images))


def test_fused_attention_is_back_after_an_error():
    model = plain_irt()
    model.backbone.blocks[0].attn.fused_attn = False
    with pytest.raises(RuntimeError, match="on the way"), captured_attention(model.backbone.blocks):
        assert not any(block.attn.fused_attn for block in model.backbone.blocks)
        raise RuntimeError("on the way")
    assert [block.attn.fused_attn for block in model.backbone.blocks] == [False, True]
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in model.backbone.blocks)


def test_a_block_that_cannot_be_read_is_named_and_the_others_are_not_touched():
    model = plain_irt()
    swin = SwinTransformerBlock(dim=8, input_resolution=(4, 4), num_heads=1, window_size=2)
    for other, name in ((swin, "WindowAttention"), (nn.Linear(2, 2), "Linear")):
        with (
            pytest.raises(ValueError, match=f"attention of {name} cannot be read, expected blocks with one of timm's"),
            captured_attention([*model.backbone.blocks, other]),
        ):
            pass
        assert all(block.attn.fused_attn for block in model.backbone.blocks)


def test_half_precision_is_captured_in_full():
    block = plain_irt().backbone.blocks[0]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), captured_attention([block]) as captured:
        block(torch.randn(1, 4, 192))
    assert captured[0].dtype == torch.float32
