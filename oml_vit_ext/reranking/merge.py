"""New distances of the first candidates beside the old ones of the rest."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_distances(new: Tensor, rest: Tensor) -> Tensor:
    """Sorted distances from the sorted ``new`` ones of the first candidates and the sorted ``rest``.

    As the host's ``PairwiseReranker`` documents it: if the largest new distance exceeds the smallest of the rest, the
    new ones are scaled down by one factor so that it does not. Where no factor can do that (a distance of zero or
    below), all are shifted by one summand instead. Float32, order kept.

    Args:
        new: ``(n,)`` distances by the pairwise model, ascending.
        rest: ``(m,)`` distances by the first stage, ascending.
    """
    new, rest = new.float(), rest.float().to(new.device)
    if len(new) and len(rest) and new[-1] > rest[0]:
        new = new * (rest[0] / new[-1]) if rest[0] > 0 and new[0] >= 0 else new - (new[-1] - rest[0])
        new = new.clamp(max=rest[0].item())  # rounding
    return torch.cat([new, rest])
