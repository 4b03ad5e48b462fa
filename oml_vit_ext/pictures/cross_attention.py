"""Where a pairwise model looks in one image because of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from oml.interfaces.models import IPairwiseModel
from torch import Tensor

from oml_vit_ext.common.evaluating import evaluating
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.backbone import total_stride
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.pictures.capture import captured_attention
from oml_vit_ext.reranking import STIRSiamese, joint

BLOCKS = ("all", "last")


@dataclass(frozen=True)
class CrossAttention:
    """Attention between the patches of two images, float32. Values are shares of a patch's whole attention.

    Attributes:
        from_1: ``(h, w, h, w)``: ``from_1[i, j]`` is the map over image 2 of what patch (i, j) of image 1 looks at.
        from_2: The other way round.
        stride: Pixels per patch, vertically and horizontally.
    """

    from_1: Tensor
    from_2: Tensor
    stride: tuple[int, int]

    @property
    def on_1(self) -> Tensor:
        """``(h, w)``: the attention that the patches of image 1 get from those of image 2, on average."""
        return self.from_2.mean(dim=(0, 1))

    @property
    def on_2(self) -> Tensor:
        """``(h, w)``: the attention that the patches of image 2 get from those of image 1, on average."""
        return self.from_1.mean(dim=(0, 1))


def cross_attention(model: IPairwiseModel, image_1: Tensor, image_2: Tensor, blocks: str = "all") -> CrossAttention:
    """Attention between two images in the blocks that see both, mean over the heads. The model is left as it was.

    Args:
        model: A ``STIRSiamese`` around an ``irt`` extractor, any ``join_layer``.
        image_1: ``(3, H, W)``, the query; with ``join_layer=0`` the upper half of the stacked picture.
        image_2: ``(3, H, W)``, the candidate.
        blocks: ``all`` that see both images, their mean, or the ``last``.

    Raises:
        TypeError: The model is not a ``STIRSiamese`` whose blocks can be reached.
        ValueError: ``blocks`` is not known, the images differ in size, or the attention cannot be read.
    """
    if blocks not in BLOCKS:
        raise ValueError(unknown_name("choice of blocks", blocks, BLOCKS))
    extractor = getattr(model, "extractor", None)
    if (
        not isinstance(model, STIRSiamese)
        or not isinstance(extractor, IRTExtractor)
        or not joint.is_joinable(extractor.backbone)
    ):
        inside = "" if extractor is None else f" around a {type(extractor).__name__}"
        raise TypeError(
            f"The attention between two images was asked of a {type(model).__name__}{inside}, expected a STIRSiamese "
            f"(name: stir) around an irt extractor with a plain vision transformer, e.g. 'vit_small_patch16_224'."
        )
    if image_1.shape != image_2.shape or image_1.ndim != 3:
        raise ValueError(
            f"Images of shape {tuple(image_1.shape)} and {tuple(image_2.shape)} were given, expected two of one shape "
            f"(3, H, W)."
        )
    vit, k = cast(Any, extractor.backbone), model.join_layer
    with evaluating(model), torch.no_grad():
        grid = tuple(joint.patch_maps(vit, image_1[None]).shape[1:3])
        first, second = model.encode(torch.stack([image_1, image_2])).split(1)
        tokens = joint.join_tokens(first, second) if k else joint.join_maps(vit, first, second)
        # All tokens of all blocks: scoring a pair leaves out those that the head does not read.
        with captured_attention(vit.blocks[k:] if blocks == "all" else vit.blocks[-1:]) as captured:
            joint.joint_blocks(vit, tokens, k)
    attention = torch.cat(captured).mean(dim=0)
    n, n_prefix = grid[0] * grid[1], vit.num_prefix_tokens
    of_1 = slice(n_prefix, n_prefix + n)
    of_2 = slice(attention.shape[0] - n, None)  # last, with or without a CLS token of its own before them
    return CrossAttention(
        attention[of_1, of_2].reshape(*grid, *grid), attention[of_2, of_1].reshape(*grid, *grid), total_stride(vit)
    )
