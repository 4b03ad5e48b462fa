"""The names of the transformers library, as on the Hugging Face hub, turned into those of the models' authors.

timm's readers know the latter. ViT and DeiT, with them DINO, MAE and MSN; DINOv2 with and without registers; DINOv3;
the image towers of CLIP, SigLIP and SigLIP 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from oml_vit_ext.extractors.checkpoints import StateDict
from oml_vit_ext.extractors.matching import some, under_prefix

_PATCHES = re.compile(r"(?P<prefix>(?:[^.]+\.)*?)embeddings\.patch_embedding(?:s\.projection|s)?\.weight")

# Of the whole model: name here, name there. The first that fits counts.
_OUTER = (
    (r"embeddings\.patch_embeddings?(?:\.projection)?\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"embeddings\.(?:cls_token|class_embedding)", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.(mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embedding(?:s|\.weight)", "pos_embed"),
    (r"pre_layrnorm\.(.*)", r"norm_pre.\1"),  # their spelling
    (r"(?:layernorm|post_layernorm|norm)\.(.*)", r"norm.\1"),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.out_proj\.(.*)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(.*)", r"attn_pool.norm.\1"),
    (r"head\.mlp\.(.*)", r"attn_pool.mlp.\1"),
)
_BLOCK = re.compile(r"(?:model\.|encoder\.)?layers?\.(?P<number>\d+)\.(?P<rest>.+)")
# Of a block, after its number.
_INNER = (
    (r"(?:layernorm_before|layer_norm1|norm1)\.(.*)", r"norm1.\1"),
    (r"(?:layernorm_after|layer_norm2|norm2)\.(.*)", r"norm2.\1"),
    (r"(?:attention\.output\.dense|self_attn\.out_proj|attention\.o_proj)\.(.*)", r"attn.proj.\1"),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"(?:intermediate\.dense|mlp\.fc1)\.(.*)", r"mlp.fc1.\1"),
    (r"(?:output\.dense|mlp\.fc2)\.(.*)", r"mlp.fc2.\1"),
    (r"mlp\.weights_in\.(.*)", r"mlp.w12.\1"),
    (r"mlp\.weights_out\.(.*)", r"mlp.w3.\1"),
)
_MLP_OF_DINOV3 = {"up_proj": "fc1", "down_proj": "fc2"}
_GATED_MLP_OF_DINOV3 = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
_QKV = re.compile(
    r"(?:attention\.attention|self_attn|attention)\.(?:(?P<q>query|q_proj)|(?P<k>key|k_proj)|value|v_proj)"
    r"\.(?P<kind>weight|bias)"
)


def with_authors_names(state: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    """The image transformer of the transformers library in a file, as its authors name it; other files as they are.

    Queries, keys and values become one matrix. What has no counterpart (the pooler after the CLS token) is left out.

    Raises:
        RuntimeError: There is more than one.
    """
    prefix = prefix_in_transformers(state, path)
    if prefix is None:
        return state
    theirs = under_prefix(state, prefix, path, "the backbone")
    is_gated = any(name.endswith("mlp.gate_proj.weight") for name in theirs)
    found: StateDict = {}
    parts: dict[str, dict[str, Tensor]] = {}  # of one matrix: "blocks.0.attn.qkv.weight" to q, k, v
    for name, tensor in theirs.items():
        if name.startswith("pooler."):
            continue
        block = _BLOCK.fullmatch(name)
        if block is None:
            found[_renamed(name, _OUTER)] = tensor
            continue
        before, rest = f"blocks.{block['number']}.", block["rest"]
        qkv = _QKV.fullmatch(rest)
        if qkv is not None:
            part = "q" if qkv["q"] else "k" if qkv["k"] else "v"
            parts.setdefault(f"{before}attn.qkv.{qkv['kind']}", {})[part] = tensor
        else:
            found[before + _renamed(_mlp_of_dinov3(rest, is_gated), _INNER)] = tensor
    for name, of_matrix in parts.items():
        if name.endswith(".bias") and {"q", "v"} == set(of_matrix):
            of_matrix["k"] = torch.zeros_like(of_matrix["q"])  # DINOv3 has none
        shapes = {tensor.shape for tensor in of_matrix.values()}
        if len(of_matrix) == 3 and len(shapes) == 1 and () not in shapes:  # else it is missing in the report
            found[name] = torch.cat([of_matrix[part] for part in ("q", "k", "v")])
    return _in_their_shapes(found, theirs)


def prefix_in_transformers(state: Mapping[str, Tensor], path: Path) -> str | None:
    """What stands before the names of the transformers library, e.g. ``vision_model.``; ``None`` in other files.

    Raises:
        RuntimeError: There is more than one.
    """
    prefixes = sorted({m["prefix"] for m in map(_PATCHES.fullmatch, state) if m})
    if len(prefixes) > 1:
        raise RuntimeError(
            f"weights {str(path)!r} hold {len(prefixes)} vision transformers, under {some(prefixes)}: expected one. "
            f"Save the part that you want on its own."
        )
    return prefixes[0] if prefixes else None


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, by in table:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(by)
    return name


def _mlp_of_dinov3(rest: str, is_gated: bool) -> str:
    names = _GATED_MLP_OF_DINOV3 if is_gated else _MLP_OF_DINOV3
    match = re.fullmatch(r"mlp\.(\w+)\.(weight|bias)", rest)
    return f"mlp.{names[match[1]]}.{match[2]}" if match and match[1] in names else rest


def _in_their_shapes(found: StateDict, theirs: Mapping[str, Tensor]) -> StateDict:
    if "pos_embed" in found and found["pos_embed"].ndim == 2:  # a table: CLIP, SigLIP
        found["pos_embed"] = found["pos_embed"].unsqueeze(0)
    if "cls_token" in found and found["cls_token"].ndim == 1:
        found["cls_token"] = found["cls_token"].reshape(1, 1, -1)
    for kind in ("weight", "bias"):
        both = theirs.get(f"head.attention.in_proj_{kind}")
        if both is not None and both.ndim > 0:  # of SigLIP's pooling
            del found[f"head.attention.in_proj_{kind}"]
            found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = both.tensor_split([len(both) // 3])
    if "pos_embed" not in found and "register_tokens" in found:  # DINOv3
        found["storage_tokens"] = found.pop("register_tokens")
    return found
