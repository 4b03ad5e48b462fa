"""Files of an ``extractor_with_momentum``: an extractor and its moving average, side by side."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from oml_vit_ext.extractors.checkpoints import StateDict, existing_file, read_state_dict
from oml_vit_ext.extractors.matching import load_all, under_prefix

logger = logging.getLogger(__name__)

_TRAINED, _AVERAGE = "extractor.", "momentum_extractor."


def load_both(model: nn.Module, weights: str | Path, *, allow_pickle: bool = False) -> None:
    """Copy an extractor and its moving average from a file, under any prefix; the rest, e.g. a criterion, is left out.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: It is broken, needs ``allow_pickle``, holds no moving average, or does not fit.
    """
    path = existing_file(weights)
    state = read_state_dict(path, allow_pickle=allow_pickle)
    prefix = _prefix(state)
    if prefix is None:
        raise RuntimeError(
            f"weights {str(path)!r} hold no moving average (no key has the part {_AVERAGE!r}): expected a checkpoint "
            f"that was trained with extractor_with_momentum. Weights of a plain extractor belong to the inner one "
            f"(in YAML: extractor.args.extractor.args.weights)."
        )
    state = under_prefix(state, prefix, path, "the extractor and its moving average")
    state = {key: tensor for key, tensor in state.items() if key.startswith((_TRAINED, _AVERAGE))}
    hint = "Was it trained with another architecture?"
    load_all(model, state, path, "this extractor and its moving average", hint=hint)


def without_average(state: StateDict, path: Path) -> StateDict:
    """The tensors of a file without those of a moving average, if it is a checkpoint of ``extractor_with_momentum``."""
    prefix = _prefix(state)
    if prefix is None or not any(key.startswith(prefix + _TRAINED) for key in state):
        return state
    logger.info("weights %s: of the extractor and its moving average, the extractor is used", path)
    return {key: tensor for key, tensor in state.items() if not key.startswith(prefix + _AVERAGE)}


def _prefix(state: StateDict) -> str | None:
    """What stands before ``momentum_extractor.`` in the names; ``None`` without any."""
    for key in sorted(state):
        if key.startswith(_AVERAGE) or f".{_AVERAGE}" in key:
            return key[: key.index(_AVERAGE)]
    return None
