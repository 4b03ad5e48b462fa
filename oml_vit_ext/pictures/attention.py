"""Where an extractor looks: one value per patch of the image."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor

from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.backbone import Backbone, check_images, forward_tokens, total_stride
from oml_vit_ext.extractors.hybrid import HybridViTExtractor
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.layer_tokens import last_norm, layer_tokens
from oml_vit_ext.extractors.wrapped import unwrapped
from oml_vit_ext.pictures.capture import captured_attention

MAP_KINDS = ("last_block", "rollout", "local_branch")
Readable: TypeAlias = IRTExtractor | HybridViTExtractor


def attention_maps(extractor: IExtractor, images: Tensor, kind: str = "last_block") -> Tensor:
    """Where the extractor looks. ``(B, 3, H, W)`` -> ``(B, h, w)``, float32, one value per patch; any H and W.

    The grid has ceil(H / stride) rows, see :func:`map_stride`: images of odd sizes are enlarged to whole patches.
    The model computes as in evaluation, at one scale, and is left as it was.

    Args:
        extractor: ``irt`` or ``hybrid_vit``, also inside ``extractor_with_pca`` or ``extractor_with_momentum``.
        images: As the extractor takes them.
        kind: ``last_block``: the attention of the CLS token in the last block, mean over the heads, or where the
            embedding is not read from CLS, the mean over the patch tokens. Values are shares: with those of the
            prefix tokens, which are left out, they sum to 1.
            ``rollout``: the same shares traced through all blocks, see :func:`rollout`.
            ``local_branch``: what each patch of the local branch's map adds to the embedding, see
            :func:`local_contribution`.

    Raises:
        TypeError: The extractor is of another class.
        ValueError: ``kind`` is not known or not to be had from this extractor, or its attention cannot be read.
    """
    if kind not in MAP_KINDS:
        raise ValueError(unknown_name("kind of map", kind, MAP_KINDS))
    inner = _readable(extractor)
    check_images(images)
    if len(images) == 0:
        return images.new_zeros((0, *_grid(inner, images)))
    with evaluating(inner), torch.no_grad():
        if kind == "local_branch":
            return local_contribution(inner, images)
        blocks = list(cast(Any, inner.backbone).blocks)
        with captured_attention(blocks if kind == "rollout" else blocks[-1:]) as attention:
            forward_tokens(inner.backbone, images)
        return _of_embedding(inner, rollout(attention) if kind == "rollout" else attention[0], images)


def map_stride(extractor: IExtractor) -> tuple[int, int]:
    """Pixels per value of :func:`attention_maps`, vertically and horizontally.

    Raises:
        TypeError: The extractor is of another class.
    """
    return total_stride(_readable(extractor).backbone)


def rollout(attention: list[Tensor]) -> Tensor:
    """Attention traced from the last block to the first: products of (A + I) / 2. ``(B, T, T)`` each -> the same.

    Half the identity stands for the residual connection; rows still sum to 1.
    Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers, arXiv 2005.00928, section 3.
    """
    traced = torch.eye(attention[0].shape[-1], device=attention[0].device).expand_as(attention[0])
    for of_block in attention:
        traced = (of_block + torch.eye(of_block.shape[-1], device=of_block.device)) / 2 @ traced
    return traced


def local_contribution(extractor: Readable, images: Tensor) -> Tensor:
    """What each patch of the local branch's map Y + ELM(Y) adds to the length of the embedding. -> ``(B, h, w)``

    In evaluation, all that follows the map is affine up to the last normalisation: mean, fully connected layers, batch
    norm. So the embedding d is a constant plus one vector per patch, and the part of that vector along d / |d| is the
    patch's contribution: setting the patch of the map to zero takes exactly this much from d · d / |d|. Values may be
    negative. A value that all patches share is a matter of the layers' biases: compare within an image.

    Raises:
        ValueError: The extractor has no local branch.
    """
    branch = getattr(extractor, "local_branch", None)
    if not isinstance(extractor, HybridViTExtractor) or branch is None:
        raise ValueError(
            f"kind 'local_branch' was asked of a {type(extractor).__name__} without local branch, expected a "
            f"hybrid_vit with branches 'local' or 'both': use 'last_block' or 'rollout'."
        )
    tokens, norm = layer_tokens(extractor.backbone, images, extractor.n_layers), last_norm(extractor.backbone)
    maps = branch.maps([norm(patches) for patches in tokens.patches], tokens.grid)
    before = []
    if extractor.global_branch is not None:
        before.append(extractor.global_branch([norm(prefix[:, 0]) for prefix in tokens.prefix]))

    def embedding(mean_of_map: Tensor) -> Tensor:
        return extractor.descriptor_head(torch.cat([*before, branch.fc(mean_of_map)], dim=-1))

    embedded, pull_back = torch.func.vjp(embedding, maps.mean(dim=(2, 3)))[:2]
    (along_embedding,) = pull_back(F.normalize(embedded, dim=-1))
    return torch.einsum("bchw,bc->bhw", maps, along_embedding).float() / maps[0, 0].numel()


def _of_embedding(extractor: Readable, attention: Tensor, images: Tensor) -> Tensor:
    """The rows of ``(B, T, T)`` of the tokens that the embedding is read from, as a map over the patches."""
    n_prefix = cast(Backbone, extractor.backbone).num_prefix_tokens
    if isinstance(extractor, HybridViTExtractor):
        reads_cls = extractor.global_branch is not None
    else:
        reads_cls = extractor.pooling.pooling == "cls"
    rows = attention[:, 0] if reads_cls else attention[:, n_prefix:].mean(dim=1)
    return rows[:, n_prefix:].unflatten(1, _grid(extractor, images))


def _grid(extractor: Readable, images: Tensor) -> tuple[int, int]:
    vertical, horizontal = total_stride(extractor.backbone)
    return -(-images.shape[2] // vertical), -(-images.shape[3] // horizontal)


def _readable(extractor: IExtractor) -> Readable:
    """The extractor of this package that others are wrapped around."""
    inner = unwrapped(extractor)
    if not isinstance(inner, IRTExtractor | HybridViTExtractor):
        raise TypeError(f"extractor is a {type(inner).__name__}, expected 'irt' or 'hybrid_vit', or one around them.")
    return inner
