"""The extractor of DToP: a hybrid transformer with a global and a local branch over its last layers.

Source: Song et al., Boosting vision transformers for image retrieval, arXiv 2210.11909.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.backbone import Backbone, build_backbone, check_arch
from oml_vit_ext.extractors.branches import BRANCHES, GlobalBranch, LocalBranch
from oml_vit_ext.extractors.freezable_parts import FreezableParts
from oml_vit_ext.extractors.hybrid_weights import load_hybrid_weights
from oml_vit_ext.extractors.layer_tokens import check_n_layers, check_tokens, last_norm, layer_tokens
from oml_vit_ext.extractors.locality import EnhancedLocality
from oml_vit_ext.extractors.multi_scale import check_scales, multi_scale
from oml_vit_ext.extractors.starting_points import models_of
from oml_vit_ext.extractors.weights import resolve_weights

logger = logging.getLogger(__name__)

# What the paper does not say about its local branch and its head, and our guesses.
LOCALITY_ARGS: Mapping[str, Any] = {
    "local_dim": None,
    "dropout": 0.1,
    "dilations": (6, 12, 18),
    "expansion": 2.0,
    "wave_height": 0.3,
    "wave_scale": 1.5,
}


class HybridViTExtractor(FreezableParts, IExtractor):
    """One embedding from the CLS tokens and the patch maps of the last layers of a hybrid transformer.

    Maps ``(B, 3, H, W)`` to ``(B, embed_dim)``, any H and W: images are enlarged to whole patches and the position
    embeddings follow the size. The tokens leave their blocks through the transformer's last norm. The global branch
    turns the CLS tokens of ``n_layers`` blocks into one vector, the local branch their patch maps; both vectors side by
    side go through dropout, a fully connected layer and batch norm. Under autocast the embeddings are float32. The
    four contributions of the paper are four switches: ``arch`` (a convolutional stem or a plain transformer),
    ``branches``, ``n_layers``, ``enhanced_locality``.

    ``freeze()`` and ``unfreeze()`` concern the transformer with its stem, as OML's ``freeze_n_epochs`` means it;
    named parts work too: ``freeze("stem")``. A frozen part also computes as in evaluation: batch norms do not drift.

    † marks what the paper does not say: the value is reconstructed, our guess.

    Args:
        weights: ``None`` (random), a timm pretrained tag (``vit_base_r50_s16_384.orig_in21k_ft_in1k``), a file of the
            transformer alone, or a file of this whole extractor, e.g. a checkpoint of OML. Without the latter,
            the branches start at random, and the log says so.
        arch: Any ViT, DeiT, EVA or hybrid model of timm.
        n_layers: From how many of the last blocks tokens are taken; 6 †.
        embed_dim: N, the size of the embedding and of each branch's vector; 1536 †.
        branches: ``global``, ``local`` or ``both``.
        enhanced_locality: Refine the local branch's map by convolutions (ELM). With ``branches="global"`` there is no
            such map: the switch has no effect then, and the log says so.
        normalise_features: Scale embeddings to length 1.
        timm_args: More arguments for timm's constructor, e.g. ``{drop_path_rate: 0.1}`` or ``{img_size: 384}``.
        allow_pickle: Read files that hold more than tensors; only for files that you trust.
        scales: In evaluation mode, embeddings are averaged over these factors of the image's sides, then normalised
            again. GLAM, of the same authors, uses 0.75, 1, 1.25.
        locality_args: Any of these †, by name: ``local_dim``, channels of the local branch's map, by default the
            transformer's width; ``dropout`` before the last fully connected layer; ``dilations`` and ``expansion`` of
            ELM's convolutions, ``wave_height`` and ``wave_scale`` of its WaveBlock, see ``EnhancedLocality``. Defaults:
            ``LOCALITY_ARGS``.
        frozen: Parts that are not trained at all: any of ``stem`` (the convolutions, or a plain transformer's patch
            projection), ``encoder`` (the rest of the transformer), ``branches``. ``unfreeze()`` leaves them frozen.
        old_locality_args: What ``locality_args`` holds, one by one: the names of earlier versions.

    Raises:
        ValueError: An argument is not valid, or the global branch is asked of a model without CLS token.
        TypeError: An argument has no such name.
        FileNotFoundError, RuntimeError: The file of ``weights`` is missing, broken, or does not fit.

    >>> tiny = {"depth": 2, "img_size": 32}
    >>> model = HybridViTExtractor(None, "vit_tiny_patch16_224", n_layers=2, embed_dim=64, timm_args=tiny).eval()
    >>> model(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 64])
    """

    default_parts = ("stem", "encoder")

    # The hybrids of timm with weights; the branches are random. Usable as ``HybridViTExtractor.from_pretrained(name)``.
    pretrained_models: dict[str, Any] = models_of("hybrid_vit")

    def __init__(
        self,
        weights: str | Path | None,
        arch: str = "vit_base_r50_s16_384",
        n_layers: int = 6,
        embed_dim: int = 1536,
        branches: str = "both",
        enhanced_locality: bool = True,
        normalise_features: bool = True,
        *,
        timm_args: Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
        scales: Sequence[float] = (1.0,),
        locality_args: Mapping[str, Any] | None = None,
        frozen: Sequence[str] = (),
        **old_locality_args: Any,
    ) -> None:
        super().__init__(frozen)
        reconstructed = _locality_args(locality_args, old_locality_args)
        dropout, local_dim = reconstructed.pop("dropout"), reconstructed.pop("local_dim")
        if branches not in BRANCHES:
            raise ValueError(unknown_name("branches", branches, BRANCHES))
        check_arch(arch)
        if arch.startswith("naflexvit"):
            raise ValueError(
                f"arch is {arch!r}, expected a ViT, DeiT, EVA or hybrid model for hybrid_vit: NaFlexViT is for irt."
            )
        self.arch = arch
        self.n_layers = n_layers
        self.normalise_features = normalise_features
        self.scales = check_scales(scales)
        source = resolve_weights(weights, arch)
        self.backbone = build_backbone(arch, source.tag, timm_args=timm_args)
        self.width = cast(Backbone, self.backbone).embed_dim
        self._embed_dim = check_whole("embed_dim", embed_dim, 1)
        channels = self.width if local_dim is None else check_whole("local_dim", local_dim, 1)
        check_n_layers(n_layers, self.backbone, arch)
        check_tokens(self.backbone, arch, branches)

        self.global_branch: GlobalBranch | None = None
        self.local_branch: LocalBranch | None = None
        if branches != "local":
            self.global_branch = GlobalBranch(n_layers, self.width, embed_dim)
        if branches != "global":
            locality = None
            if enhanced_locality:
                locality = EnhancedLocality(channels, **reconstructed)
            self.local_branch = LocalBranch(n_layers, self.width, channels, embed_dim, locality)
        elif enhanced_locality:
            logger.warning("enhanced_locality belongs to the local branch: no effect with branches='global'")
        n_branches = 2 if branches == "both" else 1
        # No bias before the batch norm, which would take it out again.
        self.descriptor_head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(n_branches * embed_dim, embed_dim, bias=False), nn.BatchNorm1d(embed_dim)
        )
        if source.path is not None:
            load_hybrid_weights(self, source.path, arch=arch, allow_pickle=allow_pickle)
        elif source.tag is not None:
            logger.info("weights %s: a transformer alone; the branches start at random", source.tag)
        self.freeze_from_the_start()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, embed_dim)``."""
        if x.shape[0] == 0:
            return x.new_zeros((0, self.feat_dim))  # timm cannot reshape zero tokens
        self._check_batch(x)
        if self.training or self.scales == (1.0,):
            return self._embed(x)
        return self._normalise(multi_scale(self._embed, x, self.scales))

    @property
    def feat_dim(self) -> int:
        """Width of the embeddings."""
        return self._embed_dim

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``stem``: pixels to tokens; ``encoder``: the rest of the transformer; ``branches``: all that follows."""
        stem = cast(Backbone, self.backbone).patch_embed
        encoder = [module for module in self.backbone.children() if module is not stem]
        branches = [self.global_branch, self.local_branch, self.descriptor_head]
        return {
            "stem": [stem],
            "encoder": [*encoder, *self.backbone.parameters(recurse=False)],  # the latter: CLS, position embeddings
            "branches": [module for module in branches if module is not None],
        }

    def _embed(self, images: Tensor) -> Tensor:
        tokens = layer_tokens(self.backbone, images, self.n_layers)
        norm = last_norm(self.backbone)
        vectors = []
        if self.global_branch is not None:
            vectors.append(self.global_branch([norm(prefix[:, 0]) for prefix in tokens.prefix]))
        if self.local_branch is not None:
            vectors.append(self.local_branch([norm(patches) for patches in tokens.patches], tokens.grid))
        embeddings = self.descriptor_head(torch.cat(vectors, dim=-1))
        return self._normalise(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))

    def _check_batch(self, images: Tensor) -> None:
        norm = self.descriptor_head[-1]
        if images.shape[0] == 1 and norm.training and isinstance(norm, nn.BatchNorm1d):
            raise ValueError(
                "A batch of 1 image was given in training mode, expected at least 2: the batch norm of hybrid_vit has "
                "nothing to average over. Use .eval() to extract, or a batch size that leaves no single image over."
            )

    def _normalise(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self.normalise_features else embeddings


def _locality_args(given: Mapping[str, Any] | None, old: Mapping[str, Any]) -> dict[str, Any]:
    """All of ``LOCALITY_ARGS``, as given under either name or by default."""
    for name in old:
        if name not in LOCALITY_ARGS:
            raise TypeError(unknown_name("argument of HybridViTExtractor", name, LOCALITY_ARGS))
    for name in given or {}:
        if name not in LOCALITY_ARGS:
            raise ValueError(unknown_name("name in locality_args", name, LOCALITY_ARGS))
        if name in old:
            raise ValueError(f"{name} is given twice, in locality_args and on its own, expected it once.")
    if old:
        logger.info("hybrid_vit: %s now belong into locality_args; the old way still works", ", ".join(old))
    return {**LOCALITY_ARGS, **(given or {}), **old}
