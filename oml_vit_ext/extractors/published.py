"""Which part of a file is the image transformer, and timm's names for it: by timm's own readers."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from oml_vit_ext.extractors.checkpoints import StateDict
from oml_vit_ext.extractors.matching import some, under_prefix
from oml_vit_ext.extractors.transformers_names import prefix_in_transformers, with_authors_names

logger = logging.getLogger(__name__)


class _Layout(NamedTuple):
    """What tells a transformer, and the name before which timm's readers expect it."""

    anchor: re.Pattern[str]
    expected_under: str = ""


def _anchor(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<prefix>(?:[^.]+\.)*?){pattern}")


# From the particular to the general: the first that is found counts.
_LAYOUTS = (
    _Layout(_anchor(r"preprocessor\.patchifier\.proj\.weight")),  # AIMv2
    _Layout(_anchor(r"radio_model\.model\.patch_generator\.embedder\.weight")),  # RADIO
    _Layout(_anchor(r"beit3\.vision_embed\.cls_token")),  # BEiT-3
    _Layout(_anchor(r"image_encoder\.model\.patch_emb\.0\.block\.conv\.weight")),  # MobileCLIP
    _Layout(_anchor(r"conv1\.weight"), "visual."),  # OpenAI's CLIP, OpenCLIP, Perception Encoder
    # timm, DeiT, DINO (blocks in chunks: DINOv2 and DINOv3 in training), MAE, BEiT, EVA, OpenCLIP around a timm model.
    _Layout(_anchor(r"blocks\.(?:0\.)?0\.attn\.(?:qkv|q_proj|wq)\.weight")),
)
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")


def image_tower(state: Mapping[str, Tensor], path: Path) -> StateDict:
    """The tensors of the one image transformer in a file, under the names that timm's readers know.

    Raises:
        RuntimeError: There is no transformer, or more than one.
    """
    state = with_authors_names(state, path)
    layout, prefix = _find(state, path)
    tower = under_prefix(state, prefix, path, "the backbone")
    return {layout.expected_under + _CHUNKED.sub(r"blocks.\1.", name): tensor for name, tensor in tower.items()}


def backbone_prefix(state: Mapping[str, Tensor], path: Path) -> str:
    """What stands before the names of the one transformer in the file, e.g. ``model.backbone.``.

    Raises:
        RuntimeError: There is no transformer, or more than one.
    """
    prefix = prefix_in_transformers(state, path)
    return _find(state, path)[1] if prefix is None else prefix


def _find(state: Mapping[str, Tensor], path: Path) -> tuple[_Layout, str]:
    for layout in _LAYOUTS:
        prefixes = sorted(_prefixes(layout, state))
        if len(prefixes) > 1:
            raise RuntimeError(
                f"weights {str(path)!r} hold {len(prefixes)} vision transformers, under {some(prefixes)}: "
                f"expected one. Save the part that you want on its own."
            )
        if prefixes:
            return layout, prefixes[0]
    raise RuntimeError(
        f"weights {str(path)!r} hold no vision transformer of a kind that timm reads (no key ends in "
        f"'blocks.0.attn.qkv.weight' or the like); found {some(state)}."
    )


def _prefixes(layout: _Layout, state: Mapping[str, Tensor]) -> Iterator[str]:
    found = {match["prefix"] for match in map(layout.anchor.fullmatch, state) if match}
    for prefix in found:
        # A convolution of that name is in every ResNet as well.
        if layout.expected_under == "" or f"{prefix}transformer.resblocks.0.attn.in_proj_weight" in state:
            yield prefix


def to_timm_names(state: StateDict, backbone: nn.Module, path: Path, *, arch: str) -> StateDict:
    """timm's names for a transformer as its authors publish it, and the backbone's own position grid.

    Args:
        state: See ``image_tower``.
        backbone: A timm vision transformer.
        path: The file, for messages.
        arch: timm's name of ``backbone``; its module's ``checkpoint_filter_fn`` does the work.

    Returns:
        The tensors in timm's names; as they were if timm's reader can make nothing of them.

    Raises:
        RuntimeError: The file holds biases that ``arch`` has no place for.
    """
    _check_biases(state, backbone, path, arch)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm's reader of DINOv3 prints a line for every block
            converted = dict(_timms_reader(arch)(_prepared(state, backbone), backbone))
    except Exception as error:  # written for the right file, it fails in any way on a wrong one
        logger.info("weights %s: timm's reader for arch %r fails on them: %r", path, arch, error)
        return state
    _undo_resampled_patches(converted, state)
    _log_resampled_positions(converted, state, backbone)
    return converted


def _timms_reader(arch: str) -> Callable[..., Mapping[str, Tensor]]:
    from timm.models import model_entrypoint  # timm's models cost 6 % of the start

    reader = sys.modules[model_entrypoint(arch).__module__].checkpoint_filter_fn
    if "adapt_layer_scale" not in inspect.signature(reader).parameters:
        return cast("Callable[..., Mapping[str, Tensor]]", reader)
    # The names of DeiT III are those of many a training script besides; a file in timm's names has none of them.
    return lambda state, model: reader(state, model, adapt_layer_scale=True)


def _prepared(state: StateDict, backbone: nn.Module) -> StateDict:
    prepared = dict(state)
    if "register_tokens" in prepared:
        prepared.setdefault("mask_token", next(iter(prepared.values())))  # what DINOv2 is told by
    elif hasattr(backbone, "rope") and "storage_tokens" not in prepared and _has_last_norm(backbone):
        # With a mask token, timm moves the last norm of a file for EVA behind the pooling, where this model has none.
        prepared.pop("mask_token", None)
    return prepared


def _has_last_norm(backbone: nn.Module) -> bool:
    return any(name.startswith("norm.") for name, _ in backbone.named_parameters())


def _check_biases(state: StateDict, backbone: nn.Module, path: Path, arch: str) -> None:
    """timm has DINOv3 with and without biases of query and value, and drops them where the model has none."""
    names = {name for name, _ in backbone.named_parameters()}
    if "storage_tokens" not in state or "blocks.0.attn.q_bias" in names:
        return
    for name, bias in state.items():
        if name.endswith("attn.qkv.bias"):
            query, _, value = bias.chunk(3)
            if query.any() or value.any():
                raise RuntimeError(
                    f"weights {str(path)!r} do not fit arch {arch!r}: the file holds biases of query and value "
                    f"({name}), expected none. timm has them in the arch whose name ends in _qkvb."
                )


def _undo_resampled_patches(converted: StateDict, state: StateDict) -> None:
    """Another patch size is another architecture: as it was, its shape is refused."""
    name = "patch_embed.proj.weight"
    theirs = state.get(name, state.get("visual.conv1.weight"))
    if theirs is not None and name in converted and theirs.ndim == 4 and theirs.shape != converted[name].shape:
        converted[name] = theirs


def _log_resampled_positions(converted: StateDict, state: StateDict, backbone: nn.Module) -> None:
    names = [name for name in state if name.split(".")[-1] in ("pos_embed", "positional_embedding")]
    if not names or "pos_embed" not in converted:
        return
    ours = converted["pos_embed"]
    grid = cast(Any, backbone).patch_embed.grid_size
    prefix_tokens = ours.shape[-2] - math.prod(grid)
    theirs = state[names[0]].shape[-2] - prefix_tokens
    if "register_tokens" in state:
        theirs -= 1
    if theirs != math.prod(grid):
        side = math.isqrt(max(theirs, 0))
        logger.info("position embeddings resampled from %dx%d to %dx%d", side, side, *grid)
