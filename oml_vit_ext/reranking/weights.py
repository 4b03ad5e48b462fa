"""Reads checkpoints of pairwise models: our own, and OML's ``ConcatSiamese``."""

from __future__ import annotations

from pathlib import Path

from oml.interfaces.models import IExtractor
from torch import nn

from oml_vit_ext.extractors.checkpoints import StateDict, existing_file, read_state_dict
from oml_vit_ext.extractors.irt import IRTExtractor
from oml_vit_ext.extractors.matching import check_match, check_values, load_all
from oml_vit_ext.extractors.weights import fit_weights

_HEAD, _EXTRACTOR, _TRAINED_K = "head.", "extractor.", "trained_join_layer"


def load_pairwise_weights(extractor: IExtractor, head: nn.Module, path: Path, *, allow_pickle: bool = False) -> int:
    """Copy the weights of a pairwise model from a file, under whatever prefix they stand in it.

    Args:
        extractor: Gets the weights of the file's extractor.
        head: Gets the weights of the file's head.
        path: A checkpoint of ``STIRSiamese`` or of OML's ``ConcatSiamese``.
        allow_pickle: Read a file that holds more than tensors; only one that you trust.

    Returns:
        The ``join_layer`` that the file was trained with; 0 for OML's models.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken, holds no pairwise model, or one of another architecture.
    """
    path = existing_file(path)
    state = _pairwise_part(read_state_dict(path, allow_pickle=allow_pickle), path)
    _load_head(head, state, path)
    extractor_state = {key: value for key, value in state.items() if key.startswith(_EXTRACTOR)}
    if isinstance(extractor, IRTExtractor):
        fit_weights(extractor.backbone, extractor_state, path, arch=extractor.arch)
    else:
        plain = {key[len(_EXTRACTOR) :]: value for key, value in extractor_state.items()}
        load_all(extractor, plain, path, f"the extractor {type(extractor).__name__}")
    return int(state[_TRAINED_K]) if _TRAINED_K in state else 0


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


def _load_head(head: nn.Module, state: StateDict, path: Path) -> None:
    expected = {_HEAD + key: value for key, value in head.state_dict().items()}
    given = {key: value for key, value in state.items() if key.startswith(_HEAD)}
    kinds = f"their head is {_widths(given)}, expected {_widths(expected)}"
    hint = "Was it trained with another arch or other mlp_hidden_dims?"
    check_match(given, expected, path, "this pairwise model", kinds=kinds, hint=hint)
    check_values(given, expected, path)
    head.load_state_dict({key[len(_HEAD) :]: value for key, value in given.items()})


def _widths(head: StateDict) -> str:
    weights = [head[key] for key in sorted(head) if head[key].ndim == 2]
    return " -> ".join(str(n) for n in [weights[0].shape[1], *(w.shape[0] for w in weights)]) if weights else "empty"
