"""Where a parameter stands in its transformer, written on the parameter itself.

OML's pipelines hand parameters to optimizers without their names. Who builds a transformer notes the place of each of
its parameters; an optimizer reads it. Copies (``copy.deepcopy``) lose the note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import NamedTuple

from torch import nn

_ATTRIBUTE = "_layer_place"


class LayerPlace(NamedTuple):
    """``layer`` counts from the image, 0 for the patch embedding, to ``n_layers - 1`` for the last block."""

    layer: int
    n_layers: int
    without_decay: bool  # the model's author wants no weight decay for it, e.g. for position embeddings


def note_places(model: nn.Module, layers: Mapping[str, int], without_decay: Iterable[str]) -> None:
    """Write its place on each parameter of a model.

    Args:
        model: Its parameters are changed in place, their values are not.
        layers: Layer by name of parameter.
        without_decay: Names, or patterns of names, of parameters without weight decay.
    """
    n_layers = max(layers.values()) + 1
    patterns = tuple(without_decay)
    for name, parameter in model.named_parameters():
        place = LayerPlace(layers.get(name, n_layers - 1), n_layers, any(fnmatch(name, p) for p in patterns))
        setattr(parameter, _ATTRIBUTE, tuple(place))  # plain data, should somebody pickle the parameter


def place_of(parameter: nn.Parameter) -> LayerPlace | None:
    """What ``note_places`` wrote; ``None`` without a note."""
    found = getattr(parameter, _ATTRIBUTE, None)
    return None if found is None else LayerPlace(*found)
