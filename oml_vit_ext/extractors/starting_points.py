"""Weights to start from: for each its architecture, its pooling, and how it expects its images.

What timm says of them, without the import of all models of timm; a test compares. ``zoo.py`` tells the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oml.const import MEAN, STD, TNormParam

from oml_vit_ext.extractors.packaged_weights import ARCH, NAME

_HALF: TNormParam = (0.5, 0.5, 0.5)
_CLIP_MEAN: TNormParam = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: TNormParam = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class StartingPoint:
    """One choice for ``weights``.

    Attributes:
        weights: A pretrained tag of timm, or the name of the weights that come with pip.
        family: Who trained it, or how.
        arch: timm's name of the architecture.
        extractor: Under which name in OML's registry it is used.
        pooling: ``cls``, or ``map`` where there is no CLS token but an attention pooling; counts for ``irt`` alone.
        size: Side of the images that it was trained with, px; the extractors take any.
        resize: Short side before the centre crop of ``size``, px.
        mean, std: Of the channels, for values in [0, 1].
    """

    weights: str
    family: str
    arch: str
    extractor: str
    pooling: str
    size: int
    resize: int
    mean: TNormParam
    std: TNormParam

    def init_args(self) -> dict[str, Any]:
        """What the extractor has to be told besides ``weights``."""
        return {"arch": self.arch} if self.pooling == "cls" else {"arch": self.arch, "pooling": self.pooling}


def _points(
    family: str,
    tags: str,
    *,
    extractor: str = "irt",
    pooling: str = "cls",
    size: int | None = None,
    crop: float = 0.9,
    mean: TNormParam = MEAN,
    std: TNormParam = STD,
) -> list[StartingPoint]:
    """Starting points that differ in nothing but their tags; the size stands in a tag where it is not given."""
    points = []
    for tag in tags.split():
        arch = tag.split(".")[0]
        side = size or int(arch.rsplit("_", 1)[1])
        points.append(StartingPoint(tag, family, arch, extractor, pooling, side, round(side / crop), mean, std))
    return points


_PAPERS = 224 / 256  # the papers' crop of the short side, where timm has 0.9 or 1

STARTING_POINTS: dict[str, StartingPoint] = {
    point.weights: point
    for point in [
        *_points(
            "DeiT",
            "deit_small_patch16_224.fb_in1k deit_small_distilled_patch16_224.fb_in1k deit_base_patch16_224.fb_in1k "
            "deit_base_distilled_patch16_224.fb_in1k deit_base_patch16_384.fb_in1k "
            "deit_base_distilled_patch16_384.fb_in1k",
            crop=_PAPERS,
        ),
        *_points("DeiT III", "deit3_small_patch16_224.fb_in1k deit3_base_patch16_224.fb_in1k"),
        *_points(
            "DINO",
            "vit_small_patch16_224.dino vit_small_patch8_224.dino vit_base_patch16_224.dino vit_base_patch8_224.dino",
        ),
        *_points(
            "DINOv2",
            "vit_small_patch14_dinov2.lvd142m vit_small_patch14_reg4_dinov2.lvd142m vit_base_patch14_dinov2.lvd142m "
            "vit_base_patch14_reg4_dinov2.lvd142m vit_large_patch14_dinov2.lvd142m "
            "vit_large_patch14_reg4_dinov2.lvd142m",
            size=518,
            crop=1.0,
        ),
        *_points(
            "DINOv3",
            "vit_small_patch16_dinov3.lvd1689m vit_base_patch16_dinov3.lvd1689m vit_large_patch16_dinov3.lvd1689m",
            size=256,
            crop=1.0,
        ),
        *_points(
            "SigLIP 2",
            "vit_base_patch32_siglip_256.v2_webli vit_base_patch16_siglip_224.v2_webli "
            "vit_base_patch16_siglip_384.v2_webli vit_large_patch16_siglip_256.v2_webli "
            "vit_so400m_patch14_siglip_224.v2_webli",
            pooling="map",
            mean=_HALF,
            std=_HALF,
        ),
        # OpenAI's models have another activation than OpenCLIP's, which the name of the architecture says.
        *_points(
            "CLIP",
            "vit_base_patch32_clip_quickgelu_224.openai vit_base_patch16_clip_quickgelu_224.openai",
            mean=_CLIP_MEAN,
            std=_CLIP_STD,
        ),
        *_points(
            "CLIP",
            "vit_large_patch14_clip_quickgelu_224.openai vit_base_patch16_clip_224.laion2b "
            "vit_base_patch16_clip_224.datacompxl vit_large_patch14_clip_224.datacompxl",
            crop=1.0,
            mean=_CLIP_MEAN,
            std=_CLIP_STD,
        ),
        *_points(
            "hybrid",
            "vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k "
            "vit_small_r26_s32_224.augreg_in21k_ft_in1k vit_small_r26_s32_384.augreg_in21k_ft_in1k "
            "vit_base_r50_s16_224.orig_in21k vit_base_r50_s16_384.orig_in21k_ft_in1k "
            "vit_large_r50_s32_224.augreg_in21k_ft_in1k vit_large_r50_s32_384.augreg_in21k_ft_in1k",
            extractor="hybrid_vit",
            crop=_PAPERS,
            mean=_HALF,
            std=_HALF,
        ),
        StartingPoint(NAME, "comes with pip", ARCH, "irt", "cls", 224, 256, MEAN, STD),
    ]
}


def models_of(extractor: str) -> dict[str, Any]:
    """The starting points of an extractor, as OML's ``from_pretrained`` wants them."""
    return {
        name: {"init_args": point.init_args()}
        for name, point in STARTING_POINTS.items()
        if point.extractor == extractor
    }
