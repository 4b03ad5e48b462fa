"""Two images through one transformer: equal to timm where timm can compute the same."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, ResPostBlock
from torch import Tensor, nn

from helpers.photos import livelier
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import joint

PATCH, DEPTH, WIDTH = 8, 3, 48


def vit(arch: str = "vit_tiny_patch16_224", **args) -> nn.Module:
    timm_args = {"img_size": 32, "patch_size": PATCH, "depth": DEPTH, "embed_dim": WIDTH}
    return livelier(IRTExtractor(None, arch, timm_args={**timm_args, **args}).backbone)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("k", range(DEPTH + 1))
@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_one_image_through_all_blocks_is_timms_own_result(arch: str, k: int):
    backbone, images = vit(arch), torch.randn(2, 3, 32, 32)
    tokens = joint.single_tokens(backbone, images, k)
    torch.testing.assert_close(joint.joint_blocks(backbone, tokens, k), backbone.forward_features(images))


def test_a_pair_of_the_trained_size_is_the_stacked_image_to_timm():
    backbone = vit(img_size=(64, 40))
    first, second = torch.randn(2, 2, 3, 32, 40)
    tokens = joint.join_maps(backbone, joint.patch_maps(backbone, first), joint.patch_maps(backbone, second))
    found = joint.joint_blocks(backbone, tokens, 0)
    torch.testing.assert_close(found, backbone.forward_features(torch.cat([first, second], dim=2)))
    assert not torch.allclose(found, backbone.forward_features(torch.cat([second, first], dim=2)), atol=1e-2)


def test_images_are_enlarged_to_whole_patches():
    maps = joint.patch_maps(vit(), torch.randn(2, 3, 33, 16))
    assert maps.shape == (2, 5, 2, WIDTH)


def test_tokens_of_the_first_image_come_first():
    one, two = torch.zeros(2, 3, 4), torch.ones(2, 5, 4)
    assert joint.join_tokens(one, two)[:, :, 0].tolist() == [[0.0] * 3 + [1.0] * 5] * 2


@pytest.mark.parametrize("args", [{}, {"qkv_bias": False, "init_values": 0.1, "qk_norm": True}])
@pytest.mark.parametrize("block_fn", [Block, ResPostBlock], ids=["plain blocks", "other blocks"])
@pytest.mark.parametrize("k", [0, DEPTH - 1])
def test_tokens_at_places_are_those_of_all_tokens(args: dict, block_fn: type, k: int):
    backbone, tokens, places = vit(block_fn=block_fn, **args), torch.randn(2, 9, WIDTH), [0, 7]
    everything = joint.joint_blocks(backbone, tokens, k)
    torch.testing.assert_close(joint.joint_blocks(backbone, tokens, k, places), everything[:, places])


def plainly_resampled(positions: Tensor, height: int, width: int) -> Tensor:
    """DINO's ``interpolate_pos_encoding``: bicubic, the scale of a size that is 0.1 larger."""
    _, h, w, d = positions.shape
    grid = positions.reshape(1, h, w, d).permute(0, 3, 1, 2)
    scale = ((height + 0.1) / h, (width + 0.1) / w)
    return F.interpolate(grid, scale_factor=scale, mode="bicubic").permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(8, 4), (6, 5), (3, 2)])
def test_positions_are_resampled_as_dino_does_it(size: tuple[int, int]):
    positions = torch.randn(1, 4, 4, 6)
    found = joint.resample_like_dino(positions, size)
    assert found.shape == (1, *size, 6)
    torch.testing.assert_close(found, plainly_resampled(positions, *size))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(joint.resample_like_dino(positions, size), found, atol=0, rtol=0)
    assert joint.resample_like_dino(positions.half(), size).dtype == torch.float16
    assert joint.resample_like_dino(positions, (4, 4)) is positions


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (vit, True),
        (lambda: vit(patch_drop_rate=0.5), False),
        (lambda: timm.create_model("eva02_tiny_patch14_224", depth=1), False),
        (lambda: nn.Linear(2, 2), False),
        (lambda: None, False),
    ],
)
def test_what_can_be_joined(make, expected: bool):
    assert joint.is_joinable(make()) is expected
