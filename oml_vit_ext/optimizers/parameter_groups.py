"""Parameters of a model and its criterion in groups of one learning rate and one weight decay, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from oml_vit_ext.common.layer_places import place_of


def parameter_groups(
    model: Iterable[nn.Parameter],
    criterion: Iterable[nn.Parameter] = (),
    *,
    weight_decay: float,
    criterion_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for a ``torch.optim.Optimizer``, by falling ``lr_scale``.

    A parameter of layer ``l`` of ``n`` has ``lr_scale = layer_decay ** (n - 1 - l)``, which is timm's rule and BEiT's
    (Bao et al., arXiv 2106.08254); parameters of a model that are in no layer, a head for instance, have 1. Weight
    decay is 0 for vectors and scalars (norms, biases) and for what the transformer's author leaves out (position
    embeddings). Those of the criterion come last, with ``lr_scale = criterion_lr_factor``.

    Args:
        model: Parameters of the extractor. Where they stand is noted on them, see ``common/layer_places.py``.
        criterion: Parameters of the criterion: proxies, class centres, a temperature.
        weight_decay: Of matrices.
        criterion_lr_factor: Learning rate of the criterion's parameters as a multiple of the model's.
        layer_decay: 1 gives every layer the same learning rate.

    Returns:
        ``{"params", "lr_scale", "weight_decay"}`` each. Groups without parameters are left out.

    Raises:
        ValueError: ``layer_decay`` is not 1, and no parameter says where it stands.
    """
    model = list(model)
    places = [place_of(parameter) for parameter in model]
    if layer_decay != 1 and not any(places):
        raise ValueError(
            f"layer_decay is {layer_decay}, but none of the {len(model)} parameters says which layer of a transformer "
            f"it belongs to: expected those of an extractor of this package, as it was built and not a deep copy, or "
            f"layer_decay=1."
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, place in zip(model, places, strict=True):
        scale = 1.0 if place is None else layer_decay ** (place.n_layers - 1 - place.layer)
        is_left_out = parameter.ndim <= 1 or (place is not None and place.without_decay)
        groups.setdefault((scale, 0.0 if is_left_out else weight_decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0], reverse=True)
    of_criterion: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in criterion:
        decay = 0.0 if parameter.ndim <= 1 else weight_decay
        of_criterion.setdefault((criterion_lr_factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in [*ordered, *of_criterion.items()]
    ]
