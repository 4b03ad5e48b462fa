"""Transforms of ``torchvision.transforms.v2`` in the form that OML's data sets know."""

from __future__ import annotations

import sys
from typing import Any


def as_known_compose(transform: Any) -> Any:
    """A ``Compose`` of v2 as the only step of one of v1; anything else as it is.

    OML tells how to read an image by the class of the transforms, and knows v1 and albumentations.
    """
    v2 = sys.modules.get("torchvision.transforms.v2")  # whoever has such a transform has imported it
    if v2 is None or not isinstance(transform, v2.Compose):
        return transform
    import torchvision.transforms as v1

    return v1.Compose([transform])
