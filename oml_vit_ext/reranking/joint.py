"""Two images through one vision transformer: pure functions over a timm backbone.

The first ``k`` blocks see each image alone, the remaining ones see both. With k = 0 this is the pair stacked along the
height into one image of twice the height, as in STIR (Shabanov et al., arXiv 2304.13393).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oml_vit_ext.extractors.backbone import check_images, resize_to_stride, total_stride


def is_joinable(backbone: nn.Module | None) -> bool:
    """Whether two images can be joined between the blocks: a timm ViT with added position embeddings (no EVA)."""
    from timm.models.vision_transformer import VisionTransformer  # timm's models cost 6 % of the start

    return (
        isinstance(backbone, VisionTransformer)
        and backbone.pos_embed is not None
        and isinstance(backbone.patch_drop, nn.Identity)  # dropped patches would lose their places
        and backbone.attn_pool is None  # it pools the patches of one image
    )


def patch_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """Patch embeddings without positions. ``(B, 3, H, W)`` -> ``(B, h, w, D)``, enlarged to whole patches."""
    check_images(images)
    return cast(Any, backbone).patch_embed(resize_to_stride(images, total_stride(backbone)))


def single_tokens(backbone: nn.Module, images: Tensor, k: int) -> Tensor:
    """Each image alone through the first ``k`` blocks, as in the first stage. -> ``(B, prefix + h * w, D)``."""
    maps = patch_maps(backbone, images)
    positions = _resample_like_timm(_patch_positions(backbone), (maps.shape[1], maps.shape[2]))
    return cast(Any, backbone).blocks[:k](_tokens(backbone, (maps + positions).flatten(1, 2)))


def join_maps(backbone: nn.Module, maps_1: Tensor, maps_2: Tensor) -> Tensor:
    """Two patch maps ``(B, h, w, D)`` as the upper and the lower half of one -> ``(B, prefix + 2 * h * w, D)``."""
    height, width = maps_1.shape[1:3]
    # DINOv2's models with registers were made with anti-aliased position embeddings, like all of timm's.
    resample = _resample_like_timm if getattr(backbone, "reg_token", None) is not None else resample_like_dino
    positions = resample(_patch_positions(backbone), (2 * height, width))
    upper, lower = maps_1 + positions[:, :height], maps_2 + positions[:, height:]
    return _tokens(backbone, torch.cat([upper.flatten(1, 2), lower.flatten(1, 2)], dim=1))


def join_tokens(tokens_1: Tensor, tokens_2: Tensor) -> Tensor:
    """Two outputs of :func:`single_tokens` as one sequence, the tokens of the first image before the second's."""
    return torch.cat([tokens_1, tokens_2], dim=1)


def joint_blocks(backbone: nn.Module, tokens: Tensor, k: int, places: Sequence[int] | None = None) -> Tensor:
    """The blocks from ``k`` on and the last norm. ``(B, T, D)`` -> ``(B, T, D)``.

    Args:
        places: Return only the tokens at these places, ``(B, len(places), D)``: the last block then has few queries,
            and its MLP few tokens, per pair. The values are the same.
    """
    vit = cast(Any, backbone)
    if places is None:
        return vit.norm(vit.blocks[k:](tokens))
    tokens = vit.blocks[k:-1](tokens)
    last = vit.blocks[-1]
    if _is_plain(last):
        return vit.norm(_tokens_of_block(last, tokens, list(places)))
    return vit.norm(last(tokens)[:, list(places)])


def resample_like_dino(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embeddings ``(1, h, w, D)`` on another grid, as DINO does it and the published STIR checkpoints need it.

    Bicubic without anti-aliasing, and with 0.1 added to the new size when the scale is computed. timm's differs from it
    by several percent.
    """
    old = positions.shape[1:3]
    if tuple(old) == size:
        return positions
    scale = tuple((new + 0.1) / before for new, before in zip(size, old, strict=True))
    with torch.autocast(positions.device.type, enabled=False):
        stretched = F.interpolate(positions.float().permute(0, 3, 1, 2), scale_factor=scale, mode="bicubic")
    return stretched.permute(0, 2, 3, 1).to(positions.dtype)


def _resample_like_timm(positions: Tensor, size: tuple[int, int]) -> Tensor:
    from timm.layers.pos_embed import resample_abs_pos_embed

    old = list(positions.shape[1:3])
    flat = resample_abs_pos_embed(positions.flatten(1, 2), list(size), old, num_prefix_tokens=0)
    return flat.unflatten(1, size)


def _patch_positions(backbone: nn.Module) -> Tensor:
    """``(1, h, w, D)``"""
    vit = cast(Any, backbone)
    skip = 0 if vit.no_embed_class else vit.num_prefix_tokens
    return vit.pos_embed[:, skip:].unflatten(1, tuple(vit.patch_embed.grid_size))


def _tokens(backbone: nn.Module, patches: Tensor) -> Tensor:
    """Prefix tokens with their positions before patch tokens that have theirs, as timm does it."""
    vit = cast(Any, backbone)
    prefix = [getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token")]
    parts = [token for token in prefix if token is not None]
    if parts:
        joined = torch.cat(parts, dim=1)
        if not vit.no_embed_class:
            joined = joined + vit.pos_embed[:, : vit.num_prefix_tokens]
        patches = torch.cat([joined.expand(len(patches), -1, -1).to(patches.dtype), patches], dim=1)
    return vit.norm_pre(vit.pos_drop(patches))


def _is_plain(block: nn.Module) -> bool:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    return (
        type(block) is Block
        and type(block.attn) is Attention
        and type(block.attn.qkv) is nn.Linear
        and getattr(block.attn, "gate", None) is None
    )


def _tokens_of_block(block: Any, tokens: Tensor, places: list[int]) -> Tensor:
    """What a timm ``Block`` makes of the tokens at ``places``. ``(B, T, D)`` -> ``(B, len(places), D)``."""
    attn = block.attn
    normed = block.norm1(tokens)
    inner = attn.qkv.out_features // 3
    weight, bias = attn.qkv.weight, attn.qkv.bias
    query = F.linear(normed[:, places], weight[:inner], None if bias is None else bias[:inner])
    keys_values = F.linear(normed, weight[inner:], None if bias is None else bias[inner:])
    heads = (attn.num_heads, attn.head_dim) if hasattr(attn, "head_dim") else (attn.num_heads, -1)
    q = attn.q_norm(query.unflatten(-1, heads).transpose(1, 2))
    k, v = keys_values.unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q, attn.k_norm(k), v, dropout_p=attn.attn_drop.p if attn.training else 0.0)
    mixed = attn.norm(mixed.transpose(1, 2).flatten(2)) if hasattr(attn, "norm") else mixed.transpose(1, 2).flatten(2)
    chosen = tokens[:, places] + block.drop_path1(block.ls1(attn.proj_drop(attn.proj(mixed))))
    return chosen + block.drop_path2(block.ls2(block.mlp(block.norm2(chosen))))
