"""The list of starting points against timm's own pretrained configs, and what OML makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oml.registry.transforms import get_transforms_for_pretrained
from PIL import Image
from timm.models import get_pretrained_cfg, is_model_pretrained

from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor
from oml_vit_ext.extractors.backbone import check_arch
from oml_vit_ext.extractors.packaged_weights import NAME
from oml_vit_ext.extractors.starting_points import STARTING_POINTS

# timm 1.0.16, the oldest that we support, does not have all of them.
OF_TIMM = [point for name, point in STARTING_POINTS.items() if name != NAME and is_model_pretrained(name)]
EXTRACTORS: dict[str, Any] = {"irt": IRTExtractor, "hybrid_vit": HybridViTExtractor}


def test_every_family_of_the_zoo_is_there():
    families = {point.family for point in STARTING_POINTS.values()}
    assert families >= {"DeiT", "DINO", "DINOv2", "DINOv3", "SigLIP 2", "CLIP", "hybrid", "comes with pip"}
    assert len(OF_TIMM) > 25


@pytest.mark.parametrize("point", OF_TIMM, ids=lambda point: point.weights)
def test_mean_deviation_and_size_are_what_timm_says(point: Any):
    cfg: Any = get_pretrained_cfg(point.weights)
    assert (point.mean, point.std, (3, point.size, point.size)) == (cfg.mean, cfg.std, cfg.input_size)
    # timm's, or the 256 px for 224 px of the papers
    assert abs(point.resize - point.size / cfg.crop_pct) <= 1 or point.resize == round(point.size * 256 / 224)
    check_arch(point.arch)


@pytest.mark.parametrize("name", STARTING_POINTS)
def test_oml_knows_each_with_its_transform(name: str):
    point = STARTING_POINTS[name]
    assert EXTRACTORS[point.extractor].pretrained_models[name] == {"init_args": point.init_args()}
    transform, _ = get_transforms_for_pretrained(name)
    white = transform(Image.new("RGB", (600, 540), (255, 255, 255)))
    assert white.shape == (3, point.size, point.size)
    torch.testing.assert_close(white[:, 0, 0], (1 - torch.tensor(point.mean)) / torch.tensor(point.std))


def test_from_pretrained_chooses_the_pooling(monkeypatch: pytest.MonkeyPatch):
    """SigLIP has no CLS token, but an attention pooling. Random numbers stand in for the download."""
    from oml_vit_ext.extractors import backbone

    create = backbone._create
    asked = []

    def offline(name: str, arch: str, timm_args: Any, *, pretrained: bool = False) -> Any:
        asked.append((name, pretrained))
        return create(arch, arch, {"depth": 1, **timm_args})

    monkeypatch.setattr(backbone, "_create", offline)
    extractor: Any = IRTExtractor.from_pretrained("vit_base_patch32_siglip_256.v2_webli")
    assert asked == [("vit_base_patch32_siglip_256.v2_webli", True)]
    assert extractor.pooling.pooling == "map" and extractor.feat_dim == 768
