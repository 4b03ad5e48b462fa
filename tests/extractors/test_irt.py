"""IRTExtractor as its users meet it: any size, any pooling, OML's interfaces, autocast, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor, IFreezable
from oml.registry.models import get_extractor_by_cfg

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRSiamese


@pytest.mark.parametrize("pooling", ["cls", "avg", "max", "gem"])
@pytest.mark.parametrize("model", [TINY_PLAIN, TINY_HYBRID], ids=["plain", "hybrid"])
def test_descriptors_have_length_one(model: dict, pooling: str):
    extractor = IRTExtractor(None, pooling=pooling, **model).eval()
    descriptors = extractor(torch.randn(3, 3, 48, 48))
    assert descriptors.shape == (3, extractor.feat_dim) == (3, 192)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))


def test_cls_equals_bare_timm():
    extractor = IRTExtractor(None, normalise_features=False, **TINY_PLAIN).eval()
    bare = timm.create_model(TINY_PLAIN["arch"], num_classes=0, **TINY_PLAIN["timm_args"]).eval()
    bare.load_state_dict(extractor.backbone.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(extractor(images), bare(images))
    torch.testing.assert_close(F.normalize(extractor(images)), F.normalize(bare(images)))


def test_average_pooling_equals_bare_timm_on_a_model_made_for_it():
    timm_args = {"img_size": 32, "depth": 2}
    extractor = IRTExtractor(None, "vit_base_patch16_gap_224", "avg", False, timm_args=timm_args).eval()
    bare = timm.create_model("vit_base_patch16_gap_224", num_classes=0, **timm_args).eval()
    bare.load_state_dict(extractor.backbone.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(extractor(images), bare(images))


@pytest.mark.parametrize("model", [TINY_PLAIN, TINY_HYBRID], ids=["plain", "hybrid"])
@pytest.mark.parametrize("size", [(48, 48), (64, 40), (33, 57), (3, 5), (1, 100)])
def test_any_image_size(model: dict, size: tuple[int, int]):
    extractor = IRTExtractor(None, pooling="avg", **model).eval()
    assert torch.isfinite(extractor(torch.randn(2, 3, *size))).all()


def test_distilled_deit_keeps_the_distillation_token_out_of_the_pooling():
    arch = "deit_tiny_distilled_patch16_224"
    extractor = IRTExtractor(None, arch, "max", False, timm_args={"depth": 1, "img_size": 32}).eval()
    tokens = extractor.backbone.forward_features(torch.ones(1, 3, 32, 32))
    assert extractor.pooling.num_prefix_tokens == 2
    torch.testing.assert_close(extractor(torch.ones(1, 3, 32, 32)), tokens[:, 2:].amax(1))


@pytest.mark.parametrize("channels", [1, 4])
def test_greyscale_and_rgba_are_refused(channels: int):
    extractor = IRTExtractor(None, **TINY_PLAIN)
    with pytest.raises(ValueError, match=rf"shape \(2, {channels}, 32, 32\) were given, expected \(B, 3, H, W\)"):
        extractor(torch.randn(2, channels, 32, 32))


def test_empty_batch_gives_empty_descriptors():
    assert IRTExtractor(None, **TINY_PLAIN).eval()(torch.zeros(0, 3, 32, 32)).shape == (0, 192)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "deit_smal_patch16_224"}, "did you mean 'deit_small_patch16_224'"),
        ({"arch": "resnet50"}, "arch 'resnet50' is one of timm's 'resnet' models, expected a plain vision transformer"),
        ({"arch": "deit_small_patch16_224.fb_in1k"}, "Expected arch='deit_small_patch16_224' and weights="),
        ({"arch": "beit_base_patch16_224"}, "has relative positions for one size of image alone"),
        ({"pooling": "mean"}, "Unknown pooling 'mean'"),
        ({"pooling": "map", "timm_args": {"depth": 1}}, "has no attention pooling, so pooling 'map' is not possible"),
        (
            {"arch": "vit_base_patch16_gap_224"},
            "has no CLS token, so pooling 'cls' is not possible: use avg, max, gem or map",
        ),
    ],
)
def test_wrong_arguments_are_told_at_construction(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        IRTExtractor(None, **arguments)


def test_freeze_and_unfreeze():
    extractor = IRTExtractor(None, **TINY_PLAIN)
    assert isinstance(extractor, IExtractor) and isinstance(extractor, IFreezable)
    extractor.freeze()
    assert not any(p.requires_grad for p in extractor.parameters())
    extractor.unfreeze()
    assert all(p.requires_grad for p in extractor.parameters())


def test_every_parameter_gets_a_gradient():
    """Otherwise DDP stops with an error about unused parameters."""
    extractor = IRTExtractor(None, **TINY_HYBRID)
    extractor(torch.randn(2, 3, 48, 48)).sum().backward()
    assert [n for n, p in extractor.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32_descriptors_near_the_full_precision_ones(dtype: torch.dtype):
    extractor = IRTExtractor(None, **TINY_PLAIN).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        half = extractor(images)
    assert half.dtype == torch.float32
    assert (half * extractor(images)).sum(1).min() > 0.999


def test_built_by_the_oml_from_yaml():
    extractor = get_extractor_by_cfg({"name": "irt", "args": {"weights": None, **TINY_PLAIN}})
    assert isinstance(extractor, IRTExtractor)


def test_from_pretrained_of_an_unknown_name_lists_what_exists():
    with pytest.raises(KeyError, match=r"deit_small_patch16_224\.fb_in1k"):
        IRTExtractor.from_pretrained("deit_huge")


def test_torch_export_with_a_dynamic_batch():
    extractor = IRTExtractor(None, **TINY_PLAIN).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(extractor, (torch.randn(4, 3, 32, 32),), dynamic_shapes={"x": {0: batch}})
    images = torch.randn(7, 3, 32, 32)
    torch.testing.assert_close(program.module()(images), extractor(images), atol=1e-5, rtol=1e-4)


# By name and the pooling that it was trained with.
OF_TODAY = {
    "vit_small_patch16_dinov3": "avg",  # registers, rotary positions
    "vit_small_patch14_reg4_dinov2": "cls",
    "vit_base_patch16_siglip_224": "map",  # SigLIP, and SigLIP 2 by its tag .v2_webli
    "vit_base_patch32_siglip_256": "map",  # SigLIP 2 alone
    "vit_base_patch16_siglip_gap_224": "avg",
    "naflexvit_base_patch16_siglip": "map",  # SigLIP 2, any aspect ratio
    "naflexvit_base_patch16_gap": "avg",
}


@pytest.mark.parametrize("arch", OF_TODAY)
def test_backbones_of_today_are_what_timm_makes_of_them(arch: str):
    if not timm.is_model(arch):
        pytest.skip(f"timm {timm.__version__} has no {arch}")
    side = 4 * int(arch.split("patch")[1][:2])
    args = {"depth": 1, "img_size": side}
    extractor = IRTExtractor(None, arch, OF_TODAY[arch], normalise_features=False, timm_args=args).eval()
    theirs = timm.create_model(arch, num_classes=0, **args).eval()
    theirs.load_state_dict(extractor.backbone.state_dict())
    images = torch.rand(2, 3, side, side)
    torch.testing.assert_close(extractor(images), theirs(images))
    odd = extractor(torch.rand(1, 3, side - 9, side + 3))
    assert odd.shape == (1, extractor.feat_dim) and odd.isfinite().all()
    extractor(images).sum().backward()
    assert all(p.grad is not None for p in extractor.parameters() if p.requires_grad)


def test_attention_pooling_is_read_from_a_checkpoint_and_asked_for(tmp_path: Path):
    args = {"arch": "vit_base_patch16_siglip_224", "timm_args": {"depth": 1, "img_size": 32}}
    trained = IRTExtractor(None, pooling="map", **args).eval()
    torch.save({"state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "map.ckpt")
    again = IRTExtractor(tmp_path / "map.ckpt", pooling="map", **args).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images), trained(images))
    without = IRTExtractor(tmp_path / "map.ckpt", pooling="avg", **args)
    assert not any("attn_pool" in name for name in without.state_dict())
    torch.save(without.state_dict(), tmp_path / "avg.pth")
    with pytest.raises(RuntimeError, match="attn_pool"):
        IRTExtractor(tmp_path / "avg.pth", pooling="map", **args)


def test_images_are_not_joined_where_attention_pools_them():
    irt = IRTExtractor(None, "vit_base_patch16_siglip_224", "map", timm_args={"depth": 1, "img_size": 32})
    with pytest.raises(ValueError, match="join_layer is 1, but 'vit_base_patch16_siglip_224' has no blocks between"):
        STIRSiamese(irt, join_layer=1)
