"""Files as their authors publish them: a model of timm, its names turned back by a mapping of this file's own."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from oml_vit_ext.extractors import HybridViTExtractor, IRTExtractor

State = dict[str, Tensor]


def renamed(state: State, *swaps: tuple[str, str], prefix: str = "") -> State:
    """Regular expressions one after the other, then a prefix."""
    renaming = {}
    for name in state:
        new = name
        for old, by in swaps:
            new = re.sub(old, by, new)
        renaming[name] = prefix + new
    return {renaming[name]: tensor for name, tensor in state.items()}


def mae_decoder(width: int = 8) -> State:
    names = ["decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight", "decoder_norm.weight", "decoder_pred.bias"]
    return {name: torch.ones(width) for name in names} | {
        "decoder_pos_embed": torch.ones(1, 5, width),
        "mask_token": torch.ones(1, 1, width),
    }


def dinov2_with_registers(state: State) -> State:
    cls_position = torch.randn(1, 1, state["cls_token"].shape[-1])
    published = renamed(state, ("^reg_token$", "register_tokens"))
    published["cls_token"] = state["cls_token"] - cls_position
    published["pos_embed"] = torch.cat([cls_position, state["pos_embed"]], dim=1)
    return published | {"mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


def dinov3(state: State) -> State:
    width = state["cls_token"].shape[-1]
    published = renamed(state, ("^reg_token$", "storage_tokens"), (r"gamma_(\d)", r"ls\1.gamma"))
    for name in [name for name in published if name.endswith("attn.q_bias")]:
        query, value = published.pop(name), published.pop(name.replace("q_bias", "v_bias"))
        published[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros(width), value])
    return published | {
        "mask_token": torch.zeros(1, width),
        "rope_embed.periods": torch.ones(16),
        "blocks.0.attn.qkv.bias_mask": torch.ones(3 * width),
    }


def openai_clip(state: State) -> State:
    published = renamed(
        {k: v for k, v in state.items() if k not in ("cls_token", "pos_embed")},
        (r"^patch_embed\.proj", "conv1"),
        ("^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"^blocks", "transformer.resblocks"),
        (r"\.norm(\d)\.", r".ln_\1."),
        (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        prefix="visual.",
    )
    text = {"transformer.resblocks.0.attn.in_proj_weight": torch.ones(6, 2), "logit_scale": torch.ones(())}
    vision = {"visual.class_embedding": state["cls_token"][0, 0], "visual.positional_embedding": state["pos_embed"][0]}
    return published | vision | text | {"visual.proj": torch.ones(state["cls_token"].shape[-1], 4)}


def beit3(state: State) -> State:
    published: State = {"beit3.text_embed.weight": torch.ones(3, 2)}
    for name, tensor in state.items():
        if name == "pos_embed":
            positions = torch.cat([torch.zeros(2, tensor.shape[-1]), tensor[0]])
            published["beit3.encoder.embed_positions.A.weight"] = positions
        elif name == "cls_token" or name.startswith("patch_embed."):
            published["beit3.vision_embed." + name.removeprefix("patch_embed.")] = tensor
        elif ".attn.qkv." in name:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                inner = re.sub(r"blocks\.(\d+)\.attn\.qkv", rf"layers.\1.self_attn.{letter}_proj.A", name)
                published[f"beit3.encoder.{inner}"] = third
        elif name.startswith("fc_norm."):
            published[name] = tensor
        else:
            inner = next(
                iter(
                    renamed(
                        {name: tensor},
                        ("^blocks", "layers"),
                        (r"attn\.norm", "self_attn.inner_attn_ln.A"),
                        (r"attn\.proj", "self_attn.out_proj.A"),
                        (r"mlp\.norm", "ffn.A.ffn_layernorm"),
                        (r"mlp\.fc", "ffn.A.fc"),
                        (r"\.norm1", ".self_attn_layer_norm.A"),
                        (r"\.norm2", ".final_layer_norm.A"),
                    )
                )
            )
            published[f"beit3.encoder.{inner}"] = tensor
    return published


def aimv2(state: State) -> State:
    return renamed(
        state,
        (r"^patch_embed\.", "preprocessor.patchifier."),
        ("^pos_embed", "preprocessor.pos_embed"),
        ("^blocks", "trunk.blocks"),
        (r"^norm\.", "trunk.post_trunk_norm."),
        (r"\.norm(\d)", r".norm_\1"),
        (r"mlp\.fc1_g", "mlp.fc1"),
        (r"mlp\.fc1_x", "mlp.fc3"),
    )


def eva_mim(state: State) -> State:
    """EVA-02 after masked image modelling: the last norm stands before the pooling, the words of its authors."""
    swaps = [("^fc_norm", "norm"), (r"mlp\.norm", "mlp.ffn_ln")]
    swaps += [(r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.fc2", "mlp.w3")]
    width = state["cls_token"].shape[-1]
    return renamed(state, *swaps) | {"mask_token": torch.ones(1, 1, width), "lm_head.weight": torch.ones(4, width)}


@dataclass(frozen=True)
class Published:
    """One kind of file: for which arch, and what is in it."""

    arch: str
    content: Callable[[State], Any]
    timm_args: dict[str, Any] = field(default_factory=dict)
    pooling: str = "cls"


def of(arch: str, content: Callable[[State], Any], pooling: str = "cls", **timm_args: Any) -> Published:
    return Published(arch, content, timm_args, pooling)


HEAD = {"head.weight": torch.ones(5, 192), "head.bias": torch.ones(5)}
SMALL = {"img_size": 32, "patch_size": 8}
SWIGLU = "vit_giant_patch14_dinov2"
KINDS = {
    "DeiT": of("deit_tiny_patch16_224", lambda s: {"model": s | HEAD}, img_size=32),
    "DeiT, distilled": of(
        "deit_tiny_distilled_patch16_224", lambda s: {"model": s | {"head_dist.bias": torch.ones(5)}}, img_size=32
    ),
    "DeiT III": of(
        "deit3_small_patch16_224", lambda s: {"model": renamed(s, (r"ls(\d)\.gamma", r"gamma_\1"))}, img_size=32
    ),
    "DINO, backbone": of("vit_small_patch16_224", lambda s: s, img_size=32),
    "DINO, whole": of(
        "vit_small_patch16_224",
        lambda s: {
            "student": renamed({k: v + 1 for k, v in s.items()}, prefix="module.backbone."),
            "teacher": renamed(s, prefix="backbone.") | {"head.mlp.0.weight": torch.ones(3)},
            "args": argparse.Namespace(arch="vit_small", lr=0.1),
        },
        img_size=32,
    ),
    "DINOv2": of("vit_small_patch14_dinov2", lambda s: s | {"mask_token": torch.zeros(1, 384)}, img_size=28),
    "DINOv2, registers": of("vit_small_patch14_reg4_dinov2", dinov2_with_registers, img_size=28),
    "DINOv2, SwiGLU": of(
        SWIGLU,
        lambda s: renamed(s, ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3")) | {"mask_token": torch.zeros(1, 48)},
        embed_dim=48,
        num_heads=2,
        img_size=28,
    ),
    "DINOv2, training, blocks in chunks": of(
        "vit_small_patch14_dinov2",
        lambda s: {
            "teacher": renamed(s, (r"^blocks\.(\d)\.", r"blocks.\1.\1."), prefix="backbone.")
            | {"dino_head.last_layer.weight": torch.ones(2), "backbone.mask_token": torch.zeros(1, 384)}
        },
        img_size=28,
        depth=2,
    ),
    "DINOv3": of("vit_small_patch16_dinov3", dinov3),
    "DINOv3, biases": of("vit_small_patch16_dinov3_qkvb", dinov3),
    "MAE, encoder": of("vit_base_patch16_224", lambda s: {"model": s}, img_size=32),
    "MAE, decoder": of("vit_base_patch16_224", lambda s: {"model": s | mae_decoder()}, img_size=32),
    "BEiT-3": of("beit3_base_patch16_224", lambda s: {"model": beit3(s)}, img_size=32),
    "EVA-02": of("eva02_tiny_patch14_224", lambda s: {"module": s}, img_size=28),
    "EVA-02, before fine-tuning": of("eva02_tiny_patch14_224", eva_mim, img_size=28),
    "EVA-CLIP": of(
        "eva02_base_patch16_clip_224",
        lambda s: (
            renamed(s, (r"attn\.norm", "attn.inner_attn_ln"), prefix="visual.")
            | {"text.transformer.resblocks.0.attn.in_proj_weight": torch.ones(2)}
        ),
        img_size=32,
    ),
    "CLIP": of("vit_base_patch32_clip_224", openai_clip, img_size=64),
    "CLIP, image tower alone": of(
        "vit_base_patch32_clip_224",
        lambda s: {k.removeprefix("visual."): v for k, v in openai_clip(s).items() if k.startswith("visual.")},
        img_size=64,
    ),
    "CLIP, trained on": of(
        "vit_base_patch32_clip_224",
        lambda s: {"state_dict": renamed(openai_clip(s), prefix="module.")},
        img_size=64,
    ),
    "OpenCLIP around timm": of(
        "vit_base_patch16_siglip_224",
        lambda s: (
            renamed(s, prefix="visual.trunk.")
            | {"visual.trunk.attn_pool.latent": torch.ones(1), "visual.head.proj.weight": torch.ones(2, 768)}
        ),
        "avg",
        img_size=32,
    ),
    "AIMv2": of("aimv2_large_patch14_224", aimv2, "avg", img_size=28, embed_dim=64, num_heads=2),
    "Perception Encoder": of(
        "vit_pe_core_tiny_patch16_384",
        lambda s: openai_clip(s) | {"visual.attn_pool.probe": torch.ones(1)},
        img_size=32,
    ),
    "timm, moving average": of(
        "vit_tiny_patch16_224",
        lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s, "arch": "vit_tiny"},
        **SMALL,
    ),
    "DeiT, moving average": of(
        "vit_tiny_patch16_224", lambda s: {"model": {k: v + 1 for k, v in s.items()}, "model_ema": s | HEAD}, **SMALL
    ),
    "timm, no moving average": of("vit_tiny_patch16_224", lambda s: {"state_dict": s, "state_dict_ema": None}, **SMALL),
    "I-JEPA": of(
        "vit_tiny_patch16_224",
        lambda s: {"encoder": renamed(s, prefix="module."), "predictor": {"module.mask_token": torch.ones(1)}},
        **SMALL,
    ),
}


def trained(arch: str, timm_args: dict[str, Any]) -> nn.Module:
    """A model of timm, every parameter random: zeros and ones would hide that two of them are exchanged."""
    generator = torch.Generator().manual_seed(5)
    model = timm.create_model(arch, num_classes=0, **{"depth": 1, **timm_args})
    if getattr(model, "attn_pool", None) is not None:
        model.attn_pool = None
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05, generator=generator)
    return model.eval()


def loaded(path: Path, kind: Published) -> IRTExtractor:
    return IRTExtractor(path, kind.arch, kind.pooling, timm_args={"depth": 1, **kind.timm_args}).eval()


def if_known(arch: str, value: str) -> Any:
    """The parameter ``value``, left out where timm is too old for ``arch``."""
    reason = f"timm {timm.__version__} has no {arch}"
    return pytest.param(value, marks=pytest.mark.skipif(not timm.is_model(arch), reason=reason))


@pytest.mark.parametrize("name", [if_known(kind.arch, name) for name, kind in KINDS.items()])
def test_a_published_file(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    model = trained(kind.arch, kind.timm_args)
    torch.save(kind.content(model.state_dict()), tmp_path / "theirs.pth")
    found, expected = loaded(tmp_path / "theirs.pth", kind).backbone.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, msg=key)


def test_the_log_says_which_of_several_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kind = KINDS["timm, moving average"]
    torch.save(kind.content(trained(kind.arch, kind.timm_args).state_dict()), tmp_path / "last.pth.tar")
    with caplog.at_level(logging.INFO):
        loaded(tmp_path / "last.pth.tar", kind)
    assert "'state_dict_ema' is used; beside it the file holds state_dict" in caplog.text


@pytest.mark.parametrize("name", ["DeiT III", "DINOv2, registers", "CLIP", "EVA-02"])
def test_position_embeddings_follow_the_size_in_every_layout(tmp_path: Path, name: str, caplog) -> None:
    kind = KINDS[name]
    model = trained(kind.arch, kind.timm_args)
    torch.save(kind.content(model.state_dict()), tmp_path / "theirs.pth")
    side = kind.timm_args["img_size"] * 2
    with caplog.at_level(logging.INFO):
        larger = loaded(tmp_path / "theirs.pth", of(kind.arch, kind.content, img_size=side))
    assert "position embeddings resampled from 2x2 to 4x4" in caplog.text
    for key, tensor in model.state_dict().items():
        if key != "pos_embed":
            torch.testing.assert_close(larger.backbone.state_dict()[key], tensor)


TIMM_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2}
REFUSED: dict[str, tuple[str, Callable[[State], Any], str]] = {
    "another patch size": (
        "vit_tiny_patch16_224",
        lambda s: s | {"patch_embed.proj.weight": torch.ones(24, 3, 16, 16)},
        r"patch 16, expected .* patch 8.*of another shape: patch_embed\.proj\.weight",
    ),
    "a layer short": (
        "vit_tiny_patch16_224",
        lambda s: {k: v for k, v in s.items() if k != "blocks.0.mlp.fc1.bias"},
        r"Missing: blocks\.0\.mlp\.fc1\.bias; unexpected: none",
    ),
    "no last norm": (
        "vit_tiny_patch16_224",
        lambda s: {k: v for k, v in s.items() if not k.startswith("norm.")},
        r"Missing: norm\.bias, norm\.weight",
    ),
    "layer scale for an arch without": (
        "vit_tiny_patch16_224",
        lambda s: s | {"blocks.0.gamma_1": torch.ones(24)},
        r"unexpected: blocks\.0\.ls1\.gamma",
    ),
    "positions of no grid": (
        "vit_tiny_patch16_224",
        lambda s: s | {"pos_embed": torch.ones(1, 12, 24)},
        r"of another shape: pos_embed",
    ),
    "wrapped and not": (
        "vit_tiny_patch16_224",
        lambda s: s | {"module.cls_token": s["cls_token"]},
        r"hold 'cls_token' twice, wrapped \(as 'module\.cls_token'\) and not",
    ),
    "a convolutional CLIP": (
        "vit_tiny_patch16_224",
        lambda s: {"visual.conv1.weight": torch.ones(2), "transformer.resblocks.0.attn.in_proj_weight": torch.ones(2)},
        r"hold no vision transformer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mapped_is_refused(tmp_path: Path, name: str) -> None:
    arch, content, sentence = REFUSED[name]
    torch.save(content(trained(arch, TIMM_ARGS).state_dict()), tmp_path / "theirs.pth")
    with pytest.raises(RuntimeError, match=sentence):
        loaded(tmp_path / "theirs.pth", of(arch, content, **TIMM_ARGS))


@pytest.mark.skipif(not timm.is_model("vit_small_patch16_dinov3"), reason="timm is too old for DINOv3")
def test_biases_of_dinov3_are_not_dropped(tmp_path: Path) -> None:
    torch.save(dinov3(trained("vit_small_patch16_dinov3_qkvb", {}).state_dict()), tmp_path / "biases.pth")
    with pytest.raises(RuntimeError, match=r"the file holds biases of query and value .* expected none.*_qkvb"):
        loaded(tmp_path / "biases.pth", of("vit_small_patch16_dinov3", dinov3))


WRAPPED: dict[str, Callable[[State], State]] = {
    "compiled": lambda s: renamed(s, prefix="_orig_mod."),
    "DDP": lambda s: renamed(s, prefix="module."),
    "compiled, then DDP": lambda s: renamed(s, prefix="module._orig_mod."),
    "compiled inside Lightning": lambda s: renamed(s, prefix="model.backbone._orig_mod."),
    "each block compiled": lambda s: renamed(s, (r"^blocks\.0", "blocks.0._orig_mod")),
    "FSDP": lambda s: renamed(s, (r"^blocks\.0", "blocks.0._fsdp_wrapped_module"), prefix="_fsdp_wrapped_module."),
    "checkpointed blocks": lambda s: renamed(s, (r"^blocks\.0", "blocks.0._checkpoint_wrapped_module")),
    "Fabric": lambda s: renamed(s, prefix="_forward_module.module."),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models(tmp_path: Path, name: str) -> None:
    model = trained("vit_tiny_patch16_224", TIMM_ARGS)
    torch.save({"state_dict": WRAPPED[name](model.state_dict())}, tmp_path / "wrapped.ckpt")
    found = loaded(tmp_path / "wrapped.ckpt", of("vit_tiny_patch16_224", dict, **TIMM_ARGS))
    torch.testing.assert_close(found.backbone.state_dict(), dict(model.state_dict()))


def jax_arrays(state: State, heads: int) -> dict[str, np.ndarray[Any, Any]]:
    """Google's arrays: channels last, heads on an axis of their own."""
    width = state["cls_token"].shape[-1]
    per_head = (heads, width // heads)
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    block, attention = "Transformer/encoderblock_0/", "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/"
    weights, biases = state["blocks.0.attn.qkv.weight"].chunk(3), state["blocks.0.attn.qkv.bias"].chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        arrays[f"{attention}{name}/kernel"] = weight.T.reshape(width, *per_head)
        arrays[f"{attention}{name}/bias"] = bias.reshape(per_head)
    arrays[f"{attention}out/kernel"] = state["blocks.0.attn.proj.weight"].T.reshape(*per_head, width)
    arrays[f"{attention}out/bias"] = state["blocks.0.attn.proj.bias"]
    for theirs, ours in {"LayerNorm_0": "norm1", "LayerNorm_2": "norm2"}.items():
        arrays[f"{block}{theirs}/scale"] = state[f"blocks.0.{ours}.weight"]
        arrays[f"{block}{theirs}/bias"] = state[f"blocks.0.{ours}.bias"]
    for i in (0, 1):
        arrays[f"{block}MlpBlock_3/Dense_{i}/kernel"] = state[f"blocks.0.mlp.fc{i + 1}.weight"].T
        arrays[f"{block}MlpBlock_3/Dense_{i}/bias"] = state[f"blocks.0.mlp.fc{i + 1}.bias"]
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def test_arrays_of_jax(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trained("vit_tiny_patch16_224", TIMM_ARGS)
    arrays = jax_arrays(model.state_dict(), heads=2)
    np.savez(tmp_path / "theirs.npz", **arrays)
    kind = of("vit_tiny_patch16_224", dict, **TIMM_ARGS)
    found = loaded(tmp_path / "theirs.npz", kind).backbone.state_dict()
    torch.testing.assert_close(found, dict(model.state_dict()))
    hybrid = HybridViTExtractor(
        tmp_path / "theirs.npz", kind.arch, n_layers=1, embed_dim=8, timm_args={"depth": 1, **TIMM_ARGS}
    )
    torch.testing.assert_close(hybrid.backbone.state_dict(), dict(model.state_dict()))
    assert "a transformer alone; the branches start at random" in caplog.text
    del arrays["Transformer/encoder_norm/bias"]
    np.savez(tmp_path / "short.npz", **arrays)
    with pytest.raises(RuntimeError, match=r"do not fit arch .*encoder_norm/bias"):
        loaded(tmp_path / "short.npz", kind)
    with pytest.raises(RuntimeError, match=r"do not fit arch 'vit_base_patch16_clip_224'"):
        loaded(tmp_path / "theirs.npz", of("vit_base_patch16_clip_224", dict, **TIMM_ARGS))


EXTRACTED = [
    "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb",
    "eva02_tiny_patch14_224",
    "beit3_base_patch16_224",
]
EXTRACTED += ["vit_pe_spatial_tiny_patch16_512", "vit_base_patch16_siglip_224", "deit3_small_patch16_224"]


@pytest.mark.parametrize("arch", [if_known(arch, arch) for arch in EXTRACTED])
@pytest.mark.parametrize("pooling", ["cls", "avg"])
def test_pooling_leaves_out_every_prefix_token(arch: str, pooling: str) -> None:
    """Against timm's own model at the same size: tokens through the last norm, then CLS or the mean of the patches."""
    n_prefix = {"vit_small_patch16_dinov3": 5, "vit_small_patch16_dinov3_qkvb": 5, "vit_base_patch16_siglip_224": 0}
    first = n_prefix.get(arch, 1)
    if pooling == "cls" and first == 0:
        pytest.skip("no CLS token")
    extractor = IRTExtractor(
        None, arch, pooling, normalise_features=False, timm_args={"depth": 1, "img_size": 56}
    ).eval()
    patch = extractor.backbone.patch_embed.patch_size[0]
    images = torch.randn(2, 3, 3 * patch, 2 * patch, generator=torch.Generator().manual_seed(0))
    tokens = extractor.backbone.forward_features(images)
    assert tokens.shape[1] == first + 6
    pooled = tokens[:, 0] if pooling == "cls" else tokens[:, first:].mean(1)
    torch.testing.assert_close(extractor(images), extractor.backbone.fc_norm(pooled))
    odd = extractor(torch.randn(1, 3, 2 * patch + 1, patch - 3))
    assert odd.shape == (1, extractor.feat_dim) and odd.isfinite().all()
