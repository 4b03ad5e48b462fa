"""HybridViTExtractor as its users meet it: its formula, its switches, any size, freezing, autocast."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from oml.interfaces.models import IExtractor, IFreezable
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_for_pretrained
from PIL import Image
from torch import Tensor, nn

from helpers import TINY_HYBRID, TINY_PLAIN
from oml_vit_ext.extractors import HybridViTExtractor

MODELS = pytest.mark.parametrize("model", [TINY_PLAIN, TINY_HYBRID], ids=["plain", "hybrid"])
SWITCHES: dict[str, dict[str, Any]] = {
    "global, one layer": {"branches": "global", "n_layers": 1, "enhanced_locality": False},
    "local, one layer": {"branches": "local", "n_layers": 1, "enhanced_locality": False},
    "local with locality": {"branches": "local", "n_layers": 2},
    "both": {"branches": "both", "n_layers": 2, "enhanced_locality": False},
    "all": {"branches": "both", "n_layers": 2},
}
ALL_SWITCHES = pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)


def build(model: dict[str, Any] = TINY_HYBRID, weights: Path | None = None, **arguments: Any) -> HybridViTExtractor:
    return HybridViTExtractor(weights, **{"n_layers": 2, "embed_dim": 32, **model, **arguments})


def settle(extractor: HybridViTExtractor) -> HybridViTExtractor:
    """Running statistics and affine parameters of batch norms away from where they start."""
    for module in extractor.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return extractor.eval()


def test_the_descriptor_by_hand():
    """Two layers, both branches, locality, image by image; the blocks of timm called one by one."""
    extractor = settle(build(normalise_features=False))
    vit: Any = extractor.backbone
    images = torch.randn(2, 3, 48, 32)
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    states = []
    for block in vit.blocks:
        x = block(x)
        states.append(vit.norm(x))
    descriptors = extractor(images)
    for i in range(2):
        cls = torch.cat([states[0][i, 0], states[1][i, 0]])
        u_c = extractor.global_branch.fc.weight @ cls + extractor.global_branch.fc.bias
        tokens = torch.cat([states[0][i, 1:], states[1][i, 1:]], dim=1)  # 6 x 4 places
        conv = extractor.local_branch.conv
        y = (tokens @ conv.weight[:, :, 0, 0].T + conv.bias).reshape(6, 4, 192).permute(2, 0, 1)
        y = y + extractor.local_branch.locality(y[None])[0]
        u_p = extractor.local_branch.fc.weight @ y.flatten(1).mean(1) + extractor.local_branch.fc.bias
        norm = extractor.descriptor_head[2]
        z = extractor.descriptor_head[1].weight @ torch.cat([u_c, u_p])
        z = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(descriptors[i], z, atol=1e-4, rtol=1e-4)


@MODELS
@ALL_SWITCHES
def test_descriptors_have_length_one(model: dict, switches: dict):
    extractor = build(model, **switches).eval()
    descriptors = extractor(torch.randn(3, 3, 48, 48))
    assert descriptors.shape == (3, extractor.feat_dim) == (3, 32)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))


@ALL_SWITCHES
def test_every_parameter_gets_a_gradient(switches: dict):
    """Otherwise DDP stops with an error about unused parameters."""
    extractor = build(**switches)
    extractor(torch.randn(2, 3, 48, 48)).sum().backward()
    assert [n for n, p in extractor.named_parameters() if p.grad is None] == []


def test_a_model_made_for_average_pooling_has_its_last_norm_used():
    """timm calls it fc_norm there."""
    extractor = build(TINY_PLAIN, timm_args={**TINY_PLAIN["timm_args"], "global_pool": "avg"})
    extractor(torch.randn(2, 3, 32, 32)).sum().backward()
    assert extractor.backbone.fc_norm.weight.grad is not None


def test_the_switches_change_the_descriptor():
    """From the same weights where they share any: no switch is without effect."""
    full = settle(build())
    images = torch.randn(2, 3, 48, 48)
    seen = [full(images)]
    for arguments in ({"n_layers": 1}, {"branches": "global"}, {"branches": "local"}, {"enhanced_locality": False}):
        other = build(**arguments)
        ours, theirs = other.state_dict(), full.state_dict()
        other.load_state_dict(
            {k: theirs[k] if k in theirs and theirs[k].shape == v.shape else v for k, v in ours.items()}
        )
        seen.append(other.eval()(images))
    for i, one in enumerate(seen):
        assert all((one - other).abs().max() > 1e-3 for other in seen[:i])


def test_reconstructed_arguments_go_under_their_old_names_too(caplog: pytest.LogCaptureFixture):
    given = {"local_dim": 8, "dropout": 0.3, "dilations": (1, 2), "expansion": 1.5, "wave_height": 0.5, "wave_scale": 2}
    with caplog.at_level(logging.INFO):
        old = build(**given)
    assert (
        "local_dim, dropout, dilations, expansion, wave_height, wave_scale now belong into locality_args" in caplog.text
    )
    new, mixed = build(locality_args=given), build(locality_args={"local_dim": 8, "dilations": [1, 2]}, expansion=1.5)
    assert repr(old) == repr(new) != repr(build())
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (old, new, mixed)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_wrong_names_of_reconstructed_arguments():
    with pytest.raises(ValueError, match="Unknown name in locality_args 'dilation': did you mean 'dilations'"):
        build(locality_args={"dilation": (1, 2)})
    with pytest.raises(TypeError, match="Unknown argument of HybridViTExtractor 'wave_hight': did you mean 'wave_heig"):
        build(wave_hight=0.5)
    with pytest.raises(ValueError, match="dropout is given twice, in locality_args and on its own, expected it once"):
        build(locality_args={"dropout": 0.1}, dropout=0.2)


def test_enhanced_locality_without_a_local_branch_is_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        extractor = build(branches="global", enhanced_locality=True)
    assert "enhanced_locality belongs to the local branch" in caplog.text
    assert extractor.local_branch is None


@MODELS
@pytest.mark.parametrize("size", [(48, 48), (64, 40), (33, 57), (3, 5), (1, 100)])
def test_any_image_size(model: dict, size: tuple[int, int]):
    """Images smaller than one patch included: they are enlarged."""
    extractor = build(model)
    images = torch.randn(2, 3, *size)
    assert torch.isfinite(extractor(images)).all()
    alone = extractor.eval()(images[:1])
    torch.testing.assert_close(alone, extractor(images)[:1], atol=1e-5, rtol=1e-4)


def test_multi_scale_by_hand():
    extractor = build(TINY_PLAIN, scales=[0.5, 1, 1.25]).eval()
    images = torch.randn(2, 3, 32, 48)
    single = copy.deepcopy(extractor)
    single.scales = (1.0,)
    total = torch.zeros(2, 32)
    for size in ((16, 24), (32, 48), (40, 60)):
        total += single(F.interpolate(images, size, mode="bilinear", align_corners=False))
    torch.testing.assert_close(extractor(images), total / total.norm(dim=1, keepdim=True))
    assert (extractor(images) - single(images)).abs().max() > 1e-4


def test_scales_are_for_evaluation_only(monkeypatch: pytest.MonkeyPatch):
    extractor, sizes = build(TINY_PLAIN, scales=(0.5, 1.0)), []
    extractor.backbone.patch_embed.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    extractor(torch.randn(2, 3, 32, 32))
    assert sizes == [32]
    extractor.eval()(torch.randn(2, 3, 32, 32))
    assert sizes == [32, 16, 32]


def test_empty_batch_gives_empty_descriptors():
    assert build().eval()(torch.zeros(0, 3, 32, 32)).shape == (0, 32)


def test_a_single_image_in_training_mode_is_refused():
    extractor = build(TINY_PLAIN)
    with pytest.raises(ValueError, match=r"batch of 1 image was given in training mode, expected at least 2"):
        extractor(torch.randn(1, 3, 32, 32))
    extractor.freeze("branches")  # its batch norms average nothing now
    assert extractor(torch.randn(1, 3, 32, 32)).requires_grad


@pytest.mark.parametrize("channels", [1, 4])
def test_greyscale_and_rgba_are_refused(channels: int):
    with pytest.raises(ValueError, match=rf"shape \(2, {channels}, 32, 32\) were given, expected \(B, 3, H, W\)"):
        build(TINY_PLAIN)(torch.randn(2, channels, 32, 32))


@pytest.mark.parametrize("size", [(0, 32), (32, 0)])
def test_images_without_pixels_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match=r"were given, expected .* at least one pixel"):
        build(TINY_PLAIN)(torch.zeros(2, 3, *size))


NO_CLS = {"arch": "vit_base_patch16_gap_224", "timm_args": {"img_size": 32, "depth": 2}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"n_layers": 3},
            r"n_layers is 3, expected a whole number from 1 to 2 .the blocks of 'vit_tiny_patch",
        ),
        ({"n_layers": 0}, "n_layers is 0, expected a whole number from 1 to 2"),
        ({"n_layers": 1.5}, r"n_layers is 1\.5, expected a whole number"),
        ({"branches": "globl"}, "Unknown branches 'globl': did you mean 'global'"),
        (NO_CLS, r"'vit_base_patch16_gap_224' has no CLS token, so branches='both' is not possible: use branches='loc"),
        ({**NO_CLS, "branches": "global"}, "has no CLS token, so branches='global' is not possible"),
        ({"arch": "vit_tiny_r_s16_p8_223"}, "did you mean 'vit_tiny_r_s16_p8_224'"),
        ({"arch": "resnet50"}, "is one of timm's 'resnet' models, expected a plain vision transformer"),
        ({"embed_dim": 0}, "embed_dim is 0, expected a whole number of at least 1"),
        ({"local_dim": 0}, "local_dim is 0, expected a whole number of at least 1"),
        ({"scales": []}, r"scales is \[\], expected positive factors"),
        ({"frozen": ["stemm"]}, "Unknown part 'stemm': did you mean 'stem'"),
        ({"timm_args": {**TINY_PLAIN["timm_args"], "patch_drop_rate": 0.5}}, "patch_drop_rate leaves no whole maps"),
    ],
)
def test_wrong_arguments_are_told_at_construction(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(TINY_PLAIN, **arguments)


def parameters_of(extractor: HybridViTExtractor) -> dict[str, list[nn.Parameter]]:
    parts: dict[str, list[nn.Parameter]] = {"stem": [], "encoder": [], "branches": []}
    for name, parameter in extractor.named_parameters():
        part = "branches" if not name.startswith("backbone.") else "encoder"
        parts["stem" if name.startswith("backbone.patch_embed.") else part].append(parameter)
    return parts


def trained(extractor: HybridViTExtractor) -> set[str]:
    """Parts all of whose parameters have gradients; fails on a part that is neither trained nor frozen as a whole."""
    parts = parameters_of(extractor)
    for name, parameters in parts.items():
        assert len({p.requires_grad for p in parameters}) == 1, name
    return {name for name, parameters in parts.items() if parameters[0].requires_grad}


def test_freeze_and_unfreeze_as_the_oml_does():
    extractor = build()
    assert isinstance(extractor, IExtractor) and isinstance(extractor, IFreezable)
    extractor.freeze()
    assert trained(extractor) == {"branches"}
    extractor.unfreeze()
    assert trained(extractor) == {"stem", "encoder", "branches"}


@pytest.mark.parametrize("part", ["stem", "encoder", "branches"])
def test_freeze_one_part(part: str):
    extractor = build()
    extractor.freeze(part)
    assert trained(extractor) == {"stem", "encoder", "branches"} - {part}
    extractor(torch.randn(2, 3, 48, 48)).sum().backward()
    assert all((p.grad is None) == (name == part) for name, ps in parameters_of(extractor).items() for p in ps)
    extractor.unfreeze(part)
    assert trained(extractor) == {"stem", "encoder", "branches"}


def test_parts_frozen_from_the_start_stay_so_when_the_oml_unfreezes():
    extractor = build(frozen=["stem"])
    extractor.freeze()
    extractor.unfreeze()
    assert trained(extractor) == {"encoder", "branches"}
    extractor.unfreeze("stem")
    assert trained(extractor) == {"stem", "encoder", "branches"}


def test_batch_norms_of_a_frozen_part_do_not_drift():
    """Those of the branches, and of a stem that has any."""
    stem = {"arch": "vit_small_resnet26d_224", "timm_args": {"img_size": 32, "depth": 1}}
    extractor = build(stem, n_layers=1, local_dim=8)

    def statistics(part: str) -> Tensor:
        buffers = extractor.named_buffers()
        of_part = lambda name: name.startswith("backbone.") == (part == "stem")  # noqa: E731
        return torch.cat([b.flatten().float() for n, b in buffers if of_part(n)]).clone()

    extractor.freeze("stem")
    for mode in ("stem", "branches"):
        extractor.train()
        before = statistics("stem"), statistics("branches")
        with torch.no_grad():
            extractor(torch.randn(2, 3, 32, 32))
        moved = [
            not torch.equal(a, b) for a, b in zip(before, (statistics("stem"), statistics("branches")), strict=True)
        ]
        assert moved == [mode == "branches", mode == "stem"]
        extractor.unfreeze("stem")
        extractor.freeze("branches")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_float32_descriptors_near_the_full_precision_ones(dtype: torch.dtype):
    extractor = build().eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        half = extractor(images)
    assert half.dtype == torch.float32
    assert (half * extractor(images)).sum(1).min() > 0.999


def test_training_under_autocast_gives_finite_gradients():
    extractor = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        extractor(torch.randn(3, 3, 48, 48))[:, 0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in extractor.parameters())


def test_copies_and_state_dict_round_trip():
    extractor = settle(build(frozen=["stem"]))
    images = torch.randn(2, 3, 48, 48)
    expected = extractor(images)
    other = build()
    other.load_state_dict(extractor.state_dict())
    for same in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor)), other.eval()):
        torch.testing.assert_close(same(images), expected)
    assert trained(copy.deepcopy(extractor)) == {"encoder", "branches"}


def test_built_by_the_oml_from_yaml():
    cfg = {"name": "hybrid_vit", "args": {"weights": None, "n_layers": 2, "embed_dim": 32, **TINY_PLAIN}}
    assert isinstance(get_extractor_by_cfg(cfg), HybridViTExtractor)


@pytest.mark.parametrize("weights", sorted(HybridViTExtractor.pretrained_models))
def test_pretrained_entries_name_real_timm_weights_and_have_transforms(weights: str):
    assert timm.is_model_pretrained(weights)
    assert HybridViTExtractor.pretrained_models[weights]["init_args"] == {"arch": weights.split(".")[0]}
    transforms, _ = get_transforms_for_pretrained(weights)
    side = 384 if "_384" in weights else 224
    white = transforms(Image.new("RGB", (500, 400), "white"))
    torch.testing.assert_close(white, torch.ones(3, side, side))  # these weights want pixels from -1 to 1
