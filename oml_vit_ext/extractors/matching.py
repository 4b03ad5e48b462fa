"""Compares the tensors of a file with those that a model expects: one rule, one report."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from oml_vit_ext.extractors.names import plain_name

logger = logging.getLogger(__name__)

_MOST_LISTED = 8
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


def check_match(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    path: Path,
    model: str,
    *,
    kinds: str = "",
    hint: str = "",
) -> None:
    """Raise unless a file holds exactly the expected names, in the expected shapes.

    Args:
        found: Tensors of the file, under the model's names.
        expected: Tensors of the model, e.g. its ``state_dict()``.
        path: The file, for the message.
        model: What the tensors are for, e.g. ``"arch 'deit_small_patch16_224'"``.
        kinds: What was found and expected, in words, if the caller can tell.
        hint: One more sentence for the user.

    Raises:
        RuntimeError: Names are missing or not expected, or shapes differ; the sentence lists all three.
    """
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    other_shape = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if missing and _ONE_OF_SEVERAL.search(path.name):
        hint = f"It is one part of several: name their index, e.g. {_ONE_OF_SEVERAL.sub('', path.name)}.index.json."
    if missing or unexpected or other_shape:
        raise RuntimeError(
            f"weights {str(path)!r} do not fit {model}{f': {kinds}' if kinds else ''}. Missing: {some(missing)}; "
            f"unexpected: {some(unexpected)}; of another shape: {some(other_shape)}.{f' {hint}' if hint else ''}"
        )


def check_values(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless the tensors of a file are numbers that a model can compute with.

    Args:
        found, expected, path: As for ``check_match``, which they pass.

    Raises:
        RuntimeError: There are whole numbers (weights that were quantized) in the place of floating-point ones, sparse
            tensors or such without numbers (of the device ``meta``), or NaN or infinity (a training that diverged); the
            sentence names the tensors.
    """
    for is_odd, what in (
        (lambda tensor: tensor.layout != torch.strided, "sparse tensors, expected dense ones"),
        (lambda tensor: tensor.is_meta, "tensors without numbers (of the device meta), expected numbers"),
    ):
        odd = [name for name in expected if is_odd(found[name])]
        if odd:
            raise RuntimeError(f"weights {str(path)!r} hold {what}: {some(odd)}.")
    whole = [name for name in expected if expected[name].is_floating_point() and not found[name].is_floating_point()]
    if whole:
        raise RuntimeError(
            f"weights {str(path)!r} hold {found[whole[0]].dtype} numbers, expected floating-point ones: {some(whole)}."
        )
    bad = [name for name in expected if not found[name].float().isfinite().all()]
    if bad:
        raise RuntimeError(
            f"weights {str(path)!r} hold NaN or infinity, as after a training that diverged, expected finite numbers: "
            f"{some(bad)}."
        )


def load_all(module: nn.Module, found: Mapping[str, Tensor], path: Path, model: str, *, hint: str = "") -> None:
    """Copy the tensors of a file into a module, all of them into all of it.

    Args:
        module: Its own names may have the parts of wrappers in them.
        found: Tensors of the file, under plain names (``read_state_dict``).
        path: The file, for the message.
        model: What the tensors are for, in words.
        hint: One more sentence for the user.

    Raises:
        RuntimeError: See ``check_match`` and ``check_values``.
    """
    own = module.state_dict()
    names = {plain_name(name): name for name in own}
    check_match(found, {plain: own[name] for plain, name in names.items()}, path, model, hint=hint)
    check_values(found, {plain: own[name] for plain, name in names.items()}, path)
    module.load_state_dict({names[plain]: tensor for plain, tensor in found.items()})


def under_prefix(state: Mapping[str, Tensor], prefix: str, path: Path, what: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it; the log lists the others.

    Args:
        state: Tensors of a file.
        prefix: E.g. ``model.backbone.``; may be empty.
        path: The file, for the log.
        what: What stands under the prefix, e.g. ``"the backbone"``.
    """
    outside = [name for name in state if not name.startswith(prefix)]
    if outside:
        logger.info("weights %s: not part of %s: %s", path, what, some(outside))
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def some(names: Iterable[str]) -> str:
    """The first names in alphabetical order, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    return ", ".join(listed[:_MOST_LISTED]) + more if listed else "none"
