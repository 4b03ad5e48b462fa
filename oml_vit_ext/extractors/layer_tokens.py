"""CLS tokens and patch tokens of the last blocks of a transformer, through timm's ``forward_intermediates``."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import Any, cast

from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.extractors.backbone import check_images, resize_to_stride, total_stride


@dataclass(frozen=True)
class LayerTokens:
    """Tokens of k blocks, the earliest block first, as they leave the blocks (before the last norm).

    Attributes:
        prefix: k tensors ``(B, prefix, D)``, CLS first; empty for a model without prefix tokens.
        patches: k tensors ``(B, h * w, D)``, row by row.
        grid: h and w.
    """

    prefix: list[Tensor]
    patches: list[Tensor]
    grid: tuple[int, int]


def layer_tokens(backbone: nn.Module, images: Tensor, n_layers: int) -> LayerTokens:
    """The tokens of the last ``n_layers`` blocks.

    Args:
        backbone: A model of ``build_backbone``.
        images: ``(B, 3, H, W)``, any H and W: enlarged to whole patches (``resize_to_stride``). Position embeddings are
            interpolated to the grid of these images.
        n_layers: How many blocks, from 1 to the depth.

    Raises:
        ValueError: ``images`` has another shape.
    """
    check_images(images)
    stride = total_stride(backbone)
    images = resize_to_stride(images, stride)
    vit = cast(Any, backbone)
    # NLC: the NCHW output copies every map, and EVA's code fails on a model without prefix tokens if asked for them.
    tokens = vit.forward_intermediates(
        images,
        indices=n_layers,
        return_prefix_tokens=vit.num_prefix_tokens > 0,
        output_fmt="NLC",
        intermediates_only=True,
    )
    grid = (images.shape[-2] // stride[0], images.shape[-1] // stride[1])
    if vit.num_prefix_tokens == 0:
        return LayerTokens([], list(tokens), grid)
    return LayerTokens([prefix for _, prefix in tokens], [patches for patches, _ in tokens], grid)


def check_n_layers(n_layers: int, backbone: nn.Module, arch: str) -> None:
    """Raise a ``ValueError`` unless the backbone has that many blocks."""
    depth = len(cast(Any, backbone).blocks)
    check_whole("n_layers", n_layers, 1, depth, f"the blocks of {arch!r}")


def check_tokens(backbone: nn.Module, arch: str, branches: str) -> None:
    """Raise a ``ValueError`` if the tokens that the branches need do not exist."""
    if branches != "local" and getattr(backbone, "cls_token", None) is None:
        raise ValueError(
            f"arch {arch!r} has no CLS token, so branches={branches!r} is not possible: use branches='local'."
        )
    if branches != "global" and not isinstance(getattr(backbone, "patch_drop", None), (nn.Identity, NoneType)):
        raise ValueError(f"patch_drop_rate leaves no whole maps for branches={branches!r}: take it out of timm_args.")


def last_norm(backbone: nn.Module) -> nn.Module:
    """The norm behind the last block; models made for average pooling have it under another name."""
    vit = cast(Any, backbone)
    return cast(nn.Module, vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm)
