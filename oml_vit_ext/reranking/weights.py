"""Reads checkpoints of pairwise models: our own, and OML's ``ConcatSiamese``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from oml_vit_ext.extractors.checkpoints import StateDict, read_state_dict
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.weights import fit_weights

if TYPE_CHECKING:
    from oml_vit_ext.reranking.siamese import STIRSiamese

logger = logging.getLogger(__name__)

_HEAD, _EXTRACTOR, _TRAINED_K = "head.", "extractor.", "trained_join_layer"


def load_pairwise_weights(model: STIRSiamese, path: Path, *, allow_pickle: bool = False) -> None:
    """Copy extractor and head of a pairwise model from a file, under whatever prefix they stand in it.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken, holds no pairwise model, or one of another architecture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights {str(path)!r}: there is no such file (looked for {path.absolute()}).")
    state = _pairwise_part(read_state_dict(path, allow_pickle=allow_pickle), path)
    _load_head(model, state, path)
    if isinstance(model.extractor, IRTExtractor):
        extractor_state = {k: v for k, v in state.items() if k.startswith(_EXTRACTOR)}
        fit_weights(model.extractor.backbone, extractor_state, path, arch=model.extractor.arch)
    else:
        _load_other_extractor(model, state, path)
    _tell_other_join_layer(model, state, path)


def _pairwise_part(state: StateDict, path: Path) -> StateDict:
    """Extractor, head and k without their common prefix."""
    anchor = f"{_HEAD}0.weight"
    prefixes = [key[: -len(anchor)] for key in state if key.endswith(anchor)]
    prefixes = [p for p in prefixes if any(key.startswith(p + _EXTRACTOR) for key in state)]
    if len(prefixes) != 1:
        raise RuntimeError(
            f"weights {str(path)!r} hold {len(prefixes) or 'no'} pairwise model{'s' if len(prefixes) > 1 else ''} "
            f"(an extractor with a head), expected one. The weights of a first stage belong to the extractor "
            f"(in YAML: extractor.args.weights)."
        )
    return {key[len(prefixes[0]) :]: value for key, value in state.items() if key.startswith(prefixes[0])}


def _load_head(model: STIRSiamese, state: StateDict, path: Path) -> None:
    expected = {_HEAD + key: value for key, value in model.head.state_dict().items()}
    found = {key: value for key, value in state.items() if key.startswith(_HEAD)}
    if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in expected.items()}:
        raise RuntimeError(
            f"weights {str(path)!r} do not fit: their head is {_widths(found)}, expected {_widths(expected)}. "
            f"Was it trained with another arch or other mlp_hidden_dims?"
        )
    model.head.load_state_dict({key[len(_HEAD) :]: value for key, value in found.items()})


def _load_other_extractor(model: STIRSiamese, state: StateDict, path: Path) -> None:
    own = {key[len(_EXTRACTOR) :]: value for key, value in state.items() if key.startswith(_EXTRACTOR)}
    try:
        model.extractor.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f"weights {str(path)!r} do not fit the extractor {type(model.extractor).__name__}: {error}"
        ) from error


def _tell_other_join_layer(model: STIRSiamese, state: StateDict, path: Path) -> None:
    trained = int(state.get(_TRAINED_K, torch.tensor(0)))  # OML's models are k = 0
    if trained != model.join_layer:
        logger.warning(
            "weights %s were trained with join_layer=%d and are used with join_layer=%d: right as a start for "
            "training, wrong for validation",
            path,
            trained,
            model.join_layer,
        )


def _widths(head: StateDict) -> str:
    weights = [head[key] for key in sorted(head) if head[key].ndim == 2]
    return " -> ".join(str(n) for n in [weights[0].shape[1], *(w.shape[0] for w in weights)]) if weights else "empty"
