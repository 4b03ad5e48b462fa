"""Reads weights for a backbone from any file that the field leaves behind, and says what it finds."""

from __future__ import annotations

import logging
import pathlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from oml_vit_ext.common.messages import unknown_name

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

# Where checkpoints keep their state dict: Lightning and OML, DeiT, DINO, timm's EMA.
_NESTED_IN = ("state_dict", "model", "teacher", "state_dict_ema", "model_ema")
# Parts of published checkpoints that an extractor has no use for: classifiers, DINO's projection and mask token.
_NOT_NEEDED = re.compile(r"^(head|head_dist|pre_logits|fc|classifier|projector|predictor)\.|^mask_token$")
_ANCHOR = "blocks.0.attn.qkv.weight"
# What a ``hybrid_vit`` has beside its backbone; every one of them has the last.
HYBRID_PARTS = ("global_branch", "local_branch", "descriptor_head")


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from: a timm tag, a local file, or neither (random)."""

    tag: str | None = None
    path: Path | None = None


def resolve_weights(weights: str | Path | None, arch: str) -> WeightsSource:
    """Tell a timm tag from a local file, before anything large is built.

    Raises:
        ValueError: The tag belongs to another architecture, or it is neither a file nor a tag.
        FileNotFoundError: It looks like a path, but there is no such file.
    """
    from timm.models import is_model_pretrained, list_pretrained  # timm's models cost 6 % of the start

    if weights is None:
        return WeightsSource()
    path = Path(weights).expanduser()
    if path.is_file():
        return WeightsSource(path=path)
    name = str(weights)
    if is_model_pretrained(name):
        if name.split(".")[0] != arch:
            raise ValueError(
                f"weights {name!r} belong to arch {name.split('.')[0]!r}, but arch is {arch!r}: change one of the two."
            )
        return WeightsSource(tag=name)
    if path.is_dir():
        raise ValueError(f"weights {name!r} is a folder, expected a file (.safetensors, .pth, .pt, .ckpt).")
    if path.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin") or len(path.parts) > 1:
        raise FileNotFoundError(f"weights {name!r}: there is no such file (looked for {path.absolute()}).")
    known = [f"{arch}.{tag.split('.', 1)[1]}" for tag in list_pretrained(f"{arch}.*")] or list_pretrained()
    raise ValueError(unknown_name("weights (neither a file nor a timm pretrained tag):", name, known))


def load_weights(backbone: nn.Module, path: Path, *, arch: str, allow_pickle: bool = False) -> None:
    """Copy the weights of a file into a timm vision transformer.

    The file may be ``.safetensors`` or anything ``torch.save`` wrote (timm, DeiT, DINO, DINOv2, Lightning, OML);
    the backbone may stand under any prefix in it. Position embeddings of another grid are resampled (bicubic).
    Classifiers, criteria and the like are left out, and the log says so.

    Raises:
        RuntimeError: The file is broken, needs ``allow_pickle``, or does not fit ``arch``; the sentence says what was
            found and what was expected.
    """
    fit_weights(backbone, read_state_dict(path, allow_pickle=allow_pickle), path, arch=arch)


def fit_weights(backbone: nn.Module, state: StateDict, path: Path, *, arch: str) -> None:
    """Copy the one transformer among the tensors of the file ``path`` into ``backbone``, see :func:`load_weights`."""
    state = _to_timm(_backbone_part(state, path), backbone)
    expected = backbone.state_dict()

    wrong_shape = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    missing = sorted(set(expected) - set(state))
    unexpected = sorted(k for k in set(state) - set(expected) if not _NOT_NEEDED.search(k))
    if wrong_shape or missing or unexpected:
        raise RuntimeError(
            f"weights {str(path)!r} do not fit arch {arch!r}: the file holds {_describe(state)}, expected "
            f"{_describe(expected)}. Missing: {some(missing)}; unexpected: {some(unexpected)}; "
            f"of another shape: {some(wrong_shape)}."
        )
    not_needed = sorted(set(state) - set(expected))
    if not_needed:
        logger.info("weights %s: not used by the extractor: %s", path, some(not_needed))
    backbone.load_state_dict({k: state[k] for k in expected}, strict=True)


def read_state_dict(path: Path, *, allow_pickle: bool = False) -> StateDict:
    """All tensors of a file, keys as they are in it.

    ``torch.save`` files are read with ``weights_only=True``. OML's checkpoints hold one path object (the folder
    of the checkpoint callback), so exactly the path classes are allowed besides.

    Raises:
        RuntimeError: The file is truncated, is no checkpoint, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise RuntimeError(f"weights {str(path)!r} is not a whole safetensors file ({error}).") from error
    try:
        with torch.serialization.safe_globals(_path_classes()):
            content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise RuntimeError(f"weights {str(path)!r} is not a checkpoint of torch ({error}).") from error
        raise RuntimeError(
            f"weights {str(path)!r} hold more than tensors, so reading them could run any code. If you trust the "
            f"file, pass allow_pickle=True (in YAML: allow_pickle: true). Reason: {_first_reason(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise RuntimeError(f"weights {str(path)!r} cannot be read, is it truncated? ({error})") from error
    return _find_tensors(content, path)


def _path_classes() -> list[Any]:
    classes: list[Any] = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    # pathlib is a package since Python 3.13, and files written there name the classes by their new home.
    return classes + [(cls, f"pathlib._local.{cls.__name__}") for cls in classes]


def _first_reason(error: Exception) -> str:
    found = re.search(r"GLOBAL ([\w.]+)|WeightsUnpickler error: ([^\n]+)", str(error))
    return next((g for g in found.groups() if g), "unknown") if found else "unknown"


def _find_tensors(content: Any, path: Path) -> StateDict:
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if isinstance(content, Mapping):
        for key in _NESTED_IN:
            if isinstance(content.get(key), (Mapping, nn.Module)):
                return _find_tensors(content[key], path)
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
    found = some(sorted(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
    raise RuntimeError(
        f"weights {str(path)!r} hold no state dict: expected tensors by name, or a dict with one of "
        f"{', '.join(map(repr, _NESTED_IN))}; found {found}."
    )


def _backbone_part(state: StateDict, path: Path) -> StateDict:
    """The entries of the one transformer in the file, without their common prefix."""
    prefix = backbone_prefix(state, path)
    outside = sorted(k for k in state if not k.startswith(prefix))
    parts = hybrid_parts(state, prefix)
    if parts:
        logger.warning(
            "weights %s: a whole hybrid_vit (backbone, %s); only its backbone is used. "
            "Its descriptors need the extractor hybrid_vit.",
            path,
            ", ".join(parts),
        )
    elif outside:
        logger.info("weights %s: not part of the backbone: %s", path, some(outside))
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def backbone_prefix(state: Mapping[str, Tensor], path: Path) -> str:
    """What stands before the names of the one transformer in the file, e.g. ``model.backbone.``.

    Raises:
        RuntimeError: There is no transformer, or more than one.
    """
    prefixes = sorted(key[: -len(_ANCHOR)] for key in state if key.endswith(_ANCHOR))
    if not prefixes:
        raise RuntimeError(
            f"weights {str(path)!r} hold no vision transformer (no key ends in {_ANCHOR!r}); "
            f"found {some(sorted(state))}."
        )
    if len(prefixes) == 2 and prefixes[0] == prefixes[1].replace("momentum_extractor.", "extractor.", 1):
        logger.info("weights %s: of the extractor and its moving average, the extractor is used", path)
        prefixes = prefixes[:1]  # a checkpoint of ``extractor_with_momentum``
    if len(prefixes) > 1:
        raise RuntimeError(
            f"weights {str(path)!r} hold {len(prefixes)} vision transformers, under {some(prefixes)}: "
            f"expected one. Save the part that you want on its own."
        )
    return prefixes[0]


def hybrid_parts(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Which parts of a ``hybrid_vit`` stand beside the transformer at ``prefix``; none if it is something else."""
    outer = prefix.removesuffix("backbone.")
    if outer == prefix:
        return []
    beside = {key[len(outer) :].split(".")[0] for key in state if key.startswith(outer)}
    return [part for part in HYBRID_PARTS if part in beside] if HYBRID_PARTS[-1] in beside else []


def _to_timm(state: StateDict, backbone: nn.Module) -> StateDict:
    """timm's names and the backbone's own position grid."""
    from timm.layers.pos_embed import resample_abs_pos_embed
    from timm.models.vision_transformer import checkpoint_filter_fn

    if "register_tokens" in state or "mask_token" in state:  # DINOv2 as its authors publish it
        state = dict(checkpoint_filter_fn(dict(state), backbone))  # type: ignore[arg-type]
    theirs, ours = state.get("pos_embed"), getattr(backbone, "pos_embed", None)
    if theirs is None or ours is None or theirs.ndim != 3 or theirs.shape[1:] == ours.shape[1:]:
        return state
    prefix_tokens = ours.shape[1] - backbone.patch_embed.num_patches  # type: ignore[union-attr]
    side = round((theirs.shape[1] - prefix_tokens) ** 0.5)
    if side * side + prefix_tokens != theirs.shape[1] or theirs.shape[2] != ours.shape[2]:
        return state  # not a grid of this model: the comparison of shapes says so
    grid = tuple(backbone.patch_embed.grid_size)  # type: ignore[union-attr,arg-type]
    resampled = resample_abs_pos_embed(
        theirs.float(), new_size=list(grid), old_size=[side, side], num_prefix_tokens=prefix_tokens
    )
    logger.info("position embeddings resampled from %dx%d to %dx%d", side, side, *grid)
    return {**state, "pos_embed": resampled.to(theirs.dtype)}


def _describe(state: Mapping[str, Tensor]) -> str:
    """What kind of transformer a state dict is, in the words of the field."""
    depth = len({m.group(1) for m in (re.match(r"blocks\.(\d+)\.", k) for k in state) if m})
    width = state[_ANCHOR].shape[1] if _ANCHOR in state else "unknown"
    patch = state["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in state else "unknown"
    parts = f"a ViT of width {width}, depth {depth}, patch {patch}"
    if any(k.startswith("patch_embed.backbone.") for k in state):
        parts += " behind a convolutional stem"
    if "dist_token" in state:
        parts += " with a distillation token"
    return parts


def some(names: list[str], limit: int = 8) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
