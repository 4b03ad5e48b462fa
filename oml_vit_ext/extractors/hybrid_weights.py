"""Files of a whole ``hybrid_vit``: its transformer and the branches that follow."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from torch import Tensor, nn

from oml_vit_ext.extractors.checkpoints import StateDict, read_state_dict
from oml_vit_ext.extractors.matching import check_match, check_values, some, under_prefix
from oml_vit_ext.extractors.momentum_weights import without_average
from oml_vit_ext.extractors.weights import fit_weights, load_backbone

logger = logging.getLogger(__name__)

_BACKBONE = "backbone."
# What stands beside the backbone.
_PARTS = ("global_branch", "local_branch", "descriptor_head")
_OF_PART = re.compile(rf"(?P<outer>(?:[^.]+\.)*?)(?P<part>{'|'.join(_PARTS)})\.")


def load_hybrid_weights(extractor: nn.Module, path: Path, *, arch: str, allow_pickle: bool = False) -> None:
    """Copy the weights of a file into a ``hybrid_vit``: all of them, or the transformer's if it holds no more.

    The extractor, or the transformer, may stand under any prefix in the file. Position embeddings of another grid are
    resampled. The log warns if the branches are not in the file: they start at random.

    Raises:
        RuntimeError: The file is broken, needs ``allow_pickle``, or does not fit; the sentence lists what is missing
            and what is not expected.
    """
    backbone = cast(nn.Module, extractor.backbone)
    if path.suffix == ".npz":
        load_backbone(backbone, path, arch=arch)
        _warn_of_random_branches(path)
        return
    state = without_average(read_state_dict(path, allow_pickle=allow_pickle), path)
    parts = parts_in(state, path)
    if parts is None:
        fit_weights(backbone, state, path, arch=arch)
        _warn_of_random_branches(path)
        return
    state = under_prefix(state, parts.outer, path, "the extractor")
    found, expected = _of_parts(state), _of_parts(extractor.state_dict())
    kinds = f"the file holds {_in_words(found)}, expected {_in_words(expected)}"
    hint = "To start from its transformer only, save that part on its own."
    check_match(found, expected, path, "this hybrid_vit", kinds=kinds, hint=hint)
    check_values(found, expected, path)
    fit_weights(backbone, {k: v for k, v in state.items() if k.startswith(_BACKBONE)}, path, arch=arch)
    extractor.load_state_dict(found, strict=False)


def without_branches(state: StateDict, path: Path) -> StateDict:
    """The tensors of a file without those beside the transformer, if it is a ``hybrid_vit``; the log warns then."""
    parts = parts_in(state, path)
    if parts is None:
        return state
    logger.warning(
        "weights %s: a whole hybrid_vit (backbone, %s); only its backbone is used. "
        "Its embeddings need the extractor hybrid_vit.",
        path,
        ", ".join(parts.names),
    )
    return {key: tensor for key, tensor in state.items() if key.startswith(parts.outer + _BACKBONE)}


class _Parts(NamedTuple):
    """Which parts stand beside a transformer, and what stands before their names."""

    outer: str
    names: list[str]


def parts_in(state: Mapping[str, Tensor], path: Path) -> _Parts | None:
    """The parts that stand beside the transformer of a file; ``None`` if it is no ``hybrid_vit``."""
    found = {(match["outer"], match["part"]) for match in map(_OF_PART.match, state) if match}
    if not found:
        return None
    outers = {outer for outer, _ in found}
    if len(outers) > 1:
        raise RuntimeError(
            f"weights {str(path)!r} hold {len(outers)} hybrid_vit, under {some(outers)}: expected one. "
            f"Save the part that you want on its own."
        )
    (outer,) = outers
    return _Parts(outer, [part for part in _PARTS if (outer, part) in found])


def _warn_of_random_branches(path: Path) -> None:
    logger.warning("weights %s: a transformer alone; the branches start at random", path)


def _of_parts(state: Mapping[str, Tensor]) -> StateDict:
    return {key: tensor for key, tensor in state.items() if key.startswith(_PARTS)}


def _in_words(state: Mapping[str, Tensor]) -> str:
    """The switches of a ``hybrid_vit``, as far as its weights tell them."""
    branches = [part for part in _PARTS[:-1] if f"{part}.fc.weight" in state]
    elm = "with" if any(key.startswith("local_branch.locality.") for key in state) else "without"
    inputs = {"global_branch": "global_branch.fc.weight", "local_branch": "local_branch.conv.weight"}
    widths = [f"{state[inputs[part]].shape[1]} into {part}" for part in branches if inputs[part] in state]
    last = state.get("descriptor_head.1.weight")
    embed_dim = "unknown" if last is None else last.shape[0]
    return f"{' and '.join(branches)} {elm} enhanced locality, widths {', '.join(widths)}, embed_dim {embed_dim}"
