"""Reads a file of a whole ``hybrid_vit``, or of the transformer alone, into a ``hybrid_vit``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from torch import nn

from oml_vit_ext.extractors.weights import (
    HYBRID_PARTS,
    StateDict,
    backbone_prefix,
    fit_weights,
    hybrid_parts,
    read_state_dict,
    some,
)

logger = logging.getLogger(__name__)


def load_hybrid_weights(extractor: nn.Module, path: Path, *, arch: str, allow_pickle: bool = False) -> None:
    """Copy the weights of a file into a ``hybrid_vit``: all of them, or the transformer's if it holds no more.

    The extractor, or the transformer, may stand under any prefix in the file. Position embeddings of another grid are
    resampled.

    Raises:
        RuntimeError: The file is broken, needs ``allow_pickle``, or does not fit; the sentence lists what is missing
            and what is not expected.
    """
    state = read_state_dict(path, allow_pickle=allow_pickle)
    prefix = backbone_prefix(state, path)
    if not hybrid_parts(state, prefix):
        fit_weights(cast(nn.Module, extractor.backbone), state, path, arch=arch)
        logger.info("weights %s: a transformer alone; the branches start at random", path)
        return
    outer = prefix.removesuffix("backbone.")
    inside = {key[len(outer) :]: tensor for key, tensor in state.items() if key.startswith(outer)}
    outside = sorted(key for key in state if not key.startswith(outer))
    if outside:
        logger.info("weights %s: not part of the extractor: %s", path, some(outside))
    ours = {key: tensor for key, tensor in inside.items() if key.startswith(HYBRID_PARTS)}
    _check_branches(extractor, ours, path)
    backbone = {key: tensor for key, tensor in inside.items() if key.startswith("backbone.")}
    fit_weights(cast(nn.Module, extractor.backbone), backbone, path, arch=arch)
    extractor.load_state_dict(ours, strict=False)


def _check_branches(extractor: nn.Module, theirs: StateDict, path: Path) -> None:
    ours = {key: tensor for key, tensor in extractor.state_dict().items() if key.startswith(HYBRID_PARTS)}
    missing, unexpected = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    wrong_shape = sorted(key for key in ours.keys() & theirs.keys() if ours[key].shape != theirs[key].shape)
    if missing or unexpected or wrong_shape:
        raise RuntimeError(
            f"weights {str(path)!r} do not fit this hybrid_vit: the file holds {_describe(theirs)}, expected "
            f"{_describe(ours)}. Missing: {some(missing)}; unexpected: {some(unexpected)}; "
            f"of another shape: {some(wrong_shape)}. To start from its transformer only, save that part on its own."
        )


def _describe(state: StateDict) -> str:
    """The switches of a ``hybrid_vit``, as far as its weights tell them."""
    branches = [part for part in HYBRID_PARTS[:-1] if f"{part}.fc.weight" in state]
    elm = "with" if any(key.startswith("local_branch.locality.") for key in state) else "without"
    inputs = {"global_branch": "global_branch.fc.weight", "local_branch": "local_branch.conv.weight"}
    widths = [f"{state[inputs[part]].shape[1]} into {part}" for part in branches if inputs[part] in state]
    last = state.get("descriptor_head.1.weight")
    embed_dim = "unknown" if last is None else last.shape[0]
    return f"{' and '.join(branches)} {elm} enhanced locality, widths {', '.join(widths)}, embed_dim {embed_dim}"
