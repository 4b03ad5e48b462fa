"""Where an extractor looks: equal to the formulas written out, for any size, and the model stays as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.extractors.pca import ExtractorWithPCA
from oml_vit_ext.pictures import MAP_KINDS, attention_maps, map_stride
from oml_vit_ext.pictures.attention import rollout


def plain_irt(**args) -> IRTExtractor:
    return livelier(IRTExtractor(weights=None, **TINY_PLAIN, **args))


def hybrid(**args) -> HybridViTExtractor:
    return livelier(HybridViTExtractor(None, n_layers=2, embed_dim=12, dilations=(1, 2), **TINY_HYBRID, **args))


def livelier(model):
    """Random transformers attend almost evenly, and fresh batch norms do nothing: louder weights, other statistics."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv.weight" in name:
                parameter.mul_(10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def attention_written_out(model: IRTExtractor, images: Tensor) -> list[Tensor]:
    """Per block softmax(q k^T / sqrt(d)), mean over heads, from the block's own inputs and weights."""
    inputs = []
    handles = [b.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for b in model.backbone.blocks]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    maps = []
    for block, tokens in zip(model.backbone.blocks, inputs, strict=True):
        qkv = F.linear(block.norm1(tokens), block.attn.qkv.weight, block.attn.qkv.bias)
        heads, width = block.attn.num_heads, tokens.shape[-1]
        per_head = []
        for h in range(heads):
            d = width // heads
            q, k = (qkv[..., part * width + h * d : part * width + (h + 1) * d] for part in (0, 1))
            per_head.append(torch.softmax(q @ k.transpose(1, 2) / d**0.5, dim=-1))
        maps.append(torch.stack(per_head).mean(dim=0).detach())
    return maps


def test_the_last_block_is_softmax_of_queries_and_keys():
    model, images = plain_irt(), torch.randn(2, 3, 32, 40)
    written_out = attention_written_out(model, images)[-1]
    maps = attention_maps(model, images)
    assert maps.shape == (2, 4, 5) and not maps.requires_grad
    torch.testing.assert_close(maps.flatten(1), written_out[:, 0, 1:])
    torch.testing.assert_close(maps.sum(dim=(1, 2)) + written_out[:, 0, 0], torch.ones(2))
    assert maps.flatten(1).std(dim=1).min() > 1e-3, "an even map would compare equal to anything"


def test_without_cls_in_the_descriptor_it_is_the_mean_over_the_patches():
    model, images = plain_irt(pooling="avg"), torch.randn(2, 3, 32, 32)
    written_out = attention_written_out(model, images)[-1]
    torch.testing.assert_close(attention_maps(model, images).flatten(1), written_out[:, 1:, 1:].mean(dim=1))


def test_rollout_traces_shares_through_all_blocks():
    model, images = plain_irt(), torch.randn(1, 3, 32, 32)
    first, last = attention_written_out(model, images)
    tokens = first.shape[-1]
    shares = torch.zeros(tokens)
    for middle in range(tokens):  # what CLS takes from a token of the last block, and that token from the image
        for start in range(tokens):
            from_last = 0.5 * last[0, 0, middle] + 0.5 * (middle == 0)
            shares[start] += from_last * (0.5 * first[0, middle, start] + 0.5 * (middle == start))
    torch.testing.assert_close(attention_maps(model, images, "rollout").flatten(), shares[1:])
    torch.testing.assert_close(rollout([first, last]).sum(dim=-1), torch.ones(1, tokens))


@pytest.mark.parametrize("kind", MAP_KINDS)
@pytest.mark.parametrize("size", [(48, 48), (33, 50), (5, 17)])
def test_any_size_gives_one_value_per_patch(kind: str, size: tuple[int, int]):
    maps = attention_maps(hybrid(), torch.randn(2, 3, *size), kind)
    assert maps.shape == (2, -(-size[0] // 8), -(-size[1] // 8)) and map_stride(hybrid()) == (8, 8)
    assert maps.isfinite().all() and maps.dtype == torch.float32


@pytest.mark.parametrize("branches, enhanced_locality", [("both", True), ("local", True), ("both", False)])
def test_a_patch_adds_to_the_descriptor_what_the_map_says(branches: str, enhanced_locality: bool):
    model = hybrid(branches=branches, enhanced_locality=enhanced_locality, normalise_features=False)
    images = torch.randn(2, 3, 16, 24)
    contribution = attention_maps(model, images, "local_branch")
    branch = model.local_branch

    def described_without(row: int, column: int) -> Tensor:
        """The descriptor when one patch of the local branch's map is zero; by hand, also without locality."""

        def forward(patch_tokens: list[Tensor], grid: tuple[int, int]) -> Tensor:
            maps = branch.maps(patch_tokens, grid)
            if row >= 0:
                maps[:, :, row, column] = 0
            return branch.fc(maps.mean(dim=(2, 3)))

        original, branch.forward = branch.forward, forward
        try:
            return model(images)
        finally:
            branch.forward = original

    with torch.no_grad():
        whole = model(images)
        torch.testing.assert_close(described_without(-1, -1), whole)
        along = F.normalize(whole, dim=-1)
        for row in range(2):
            for column in range(3):
                lost = ((whole - described_without(row, column)) * along).sum(dim=-1)
                torch.testing.assert_close(contribution[:, row, column], lost, atol=1e-5, rtol=1e-4)


def test_an_extractor_inside_another_is_found():
    model, images = plain_irt(), torch.randn(1, 3, 32, 32)
    compact = ExtractorWithPCA(model, None, 8)
    torch.testing.assert_close(attention_maps(compact, images), attention_maps(model, images))


def test_eva_can_be_read_too():
    timm_args = {"img_size": 28, "patch_size": 14, "depth": 1}
    model = IRTExtractor(weights=None, arch="eva02_tiny_patch14_224", timm_args=timm_args)
    maps = attention_maps(model, torch.randn(1, 3, 28, 42))
    assert maps.shape == (1, 2, 3) and 0 < maps.sum() < 1


def test_no_images_give_no_maps():
    assert attention_maps(plain_irt(), torch.zeros(0, 3, 33, 32)).shape == (0, 5, 4)


def test_the_model_is_left_as_it_was():
    model, images = plain_irt(), torch.randn(2, 3, 32, 32)
    before = model(images)
    model.train()
    model.backbone.blocks[0].eval()
    attention_maps(model, images, "rollout")
    assert model.training and not model.backbone.blocks[0].training and model.backbone.blocks[1].training
    assert all(block.attn.fused_attn for block in model.backbone.blocks)
    torch.testing.assert_close(model.eval()(images), before)


class Other(nn.Module):
    pass


def test_what_cannot_be_told_is_an_error():
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="kind of map 'rolout': did you mean 'rollout'"):
        attention_maps(plain_irt(), images, "rolout")
    with pytest.raises(ValueError, match="IRTExtractor without local branch, expected a hybrid_vit"):
        attention_maps(plain_irt(), images, "local_branch")
    with pytest.raises(ValueError, match="HybridViTExtractor without local branch"):
        attention_maps(hybrid(branches="global", enhanced_locality=False), images, "local_branch")
    with pytest.raises(TypeError, match="extractor is a Other, expected 'irt' or 'hybrid_vit', or one around them"):
        attention_maps(Other(), images)
    model = plain_irt()
    model.backbone.blocks[-1].attn = Other()
    with pytest.raises(ValueError, match="attention of Other cannot be read"):
        attention_maps(model, images)
