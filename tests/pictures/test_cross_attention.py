"""Attention between query and candidate: equal to the formula, in the right places, for every join layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.pictures import CrossAttention, cross_attention
from oml_vit_ext.reranking import STIRSiamese

TINY_3 = {"arch": TINY_PLAIN["arch"], "timm_args": {**TINY_PLAIN["timm_args"], "depth": 3}}


def stir(join_layer: int, **args) -> STIRSiamese:
    model = STIRSiamese(IRTExtractor(weights=None, **TINY_3, **args), (8,), join_layer=join_layer)
    with torch.no_grad():
        for block in model.extractor.backbone.blocks:
            block.attn.qkv.weight.mul_(10)
    return model.eval()


def full_attention(model: STIRSiamese, image_1: Tensor, image_2: Tensor) -> list[Tensor]:
    """Per joint block the attention over the whole sequence, ``(T, T)``, from the block's inputs and weights.

    With average pooling for once: then the model runs all tokens through the last block.
    """
    blocks, inputs = model.extractor.backbone.blocks[model.join_layer :], []
    handles = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in blocks]
    pooling, model.extractor.pooling.pooling = model.extractor.pooling.pooling, "avg"
    with torch.no_grad():
        model(image_1[None], image_2[None])
    model.extractor.pooling.pooling = pooling
    for handle in handles:
        handle.remove()
    found = []
    for block, tokens in zip(blocks, inputs, strict=True):
        q, k, _ = block.attn.qkv(block.norm1(tokens[0])).chunk(3, dim=-1)
        heads = [
            torch.softmax(q_h @ k_h.T / q_h.shape[1] ** 0.5, dim=-1)
            for q_h, k_h in zip(q.split(64, dim=1), k.split(64, dim=1), strict=True)
        ]
        found.append(torch.stack(heads).mean(dim=0).detach())
    return found


@pytest.mark.parametrize("join_layer", [0, 1, 2])
@pytest.mark.parametrize("blocks", ["all", "last"])
def test_it_is_the_attention_of_the_joint_blocks(join_layer: int, blocks: str):
    model = stir(join_layer)
    image_1, image_2 = torch.randn(2, 3, 30, 24)  # 4 x 3 patches
    found = full_attention(model, image_1, image_2)
    attention = found[-1] if blocks == "last" else torch.stack(found).mean(dim=0)
    assert len(found) == 3 - join_layer and len(attention) == 24 + (1 if join_layer == 0 else 2)
    first = range(1, 13)  # after the CLS token
    second = range(13, 25) if join_layer == 0 else range(14, 26)

    shown = cross_attention(model, image_1, image_2, blocks)
    assert shown.from_1.shape == (4, 3, 4, 3) and shown.stride == (8, 8)
    for p, place_1 in enumerate(first):
        for q, place_2 in enumerate(second):
            a, b = divmod(p, 3), divmod(q, 3)
            torch.testing.assert_close(shown.from_1[a + b], attention[place_1, place_2])
            torch.testing.assert_close(shown.from_2[b + a], attention[place_2, place_1])
    torch.testing.assert_close(shown.on_2.flatten(), attention[1:13, second[0] :][:, :12].mean(dim=0))
    torch.testing.assert_close(shown.on_1.flatten(), attention[second[0] : second[-1] + 1, 1:13].mean(dim=0))
    assert attention.std() > 1e-3, "an even attention would compare equal to anything"


def test_both_orders_agree_where_the_model_is_symmetric():
    model, images = stir(2), torch.randn(2, 3, 32, 32)
    one, other = cross_attention(model, *images), cross_attention(model, *images.flip(0))
    torch.testing.assert_close(one.on_1, other.on_2)
    torch.testing.assert_close(one.from_1, other.from_2)


def test_the_second_image_changes_where_the_first_looks():
    model, (query, one, other) = stir(2), torch.randn(3, 3, 32, 32)
    shown = [cross_attention(model, query, candidate).on_2 for candidate in (one, other, one)]
    torch.testing.assert_close(shown[0], shown[2])
    assert not torch.allclose(shown[0], shown[1], rtol=1e-2)


def test_the_pair_model_is_left_as_it_was():
    model, images = stir(1), torch.randn(2, 3, 32, 32)
    before = model.predict(images[:1], images[1:])
    model.freeze()
    model.train()
    cross_attention(model, *images)
    assert model.training and model.head.training and not model.extractor.training
    assert all(block.attn.fused_attn for block in model.extractor.backbone.blocks)
    torch.testing.assert_close(model.eval().predict(images[:1], images[1:]), before)


def test_pairs_that_cannot_be_read_are_errors():
    images = torch.randn(2, 3, 48, 48)
    around_hybrid = STIRSiamese(
        HybridViTExtractor(None, n_layers=1, embed_dim=4, branches="local", enhanced_locality=False, **TINY_HYBRID)
    )
    with pytest.raises(TypeError, match="asked of a STIRSiamese around a HybridViTExtractor, expected"):
        cross_attention(around_hybrid, *images)
    with pytest.raises(TypeError, match="asked of a IRTExtractor, expected a STIRSiamese"):
        cross_attention(stir(0).extractor, *images)
    with pytest.raises(ValueError, match=r"shape \(3, 48, 48\) and \(3, 48, 40\) were given"):
        cross_attention(stir(0), images[0], images[1, :, :, :40])
    with pytest.raises(ValueError, match="choice of blocks 'first'"):
        cross_attention(stir(0), *images, blocks="first")


def test_a_pair_has_a_map_of_each_patch():
    shown = CrossAttention(torch.arange(16.0).reshape(2, 2, 2, 2), torch.zeros(2, 2, 2, 2), (8, 8))
    torch.testing.assert_close(shown.on_2, torch.tensor([[6.0, 7.0], [8.0, 9.0]]))
