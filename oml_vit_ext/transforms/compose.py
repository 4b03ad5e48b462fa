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


def as_any_compose(transform: Any) -> Any:
    """Whatever turns pictures into tensors as a ``Compose`` of torchvision's v1 or of albumentations.

    A single transform, the presets of torchvision's weights and functions of one's own are the only step of one.

    Raises:
        ValueError: It cannot be called.
    """
    import torchvision.transforms as v1

    albumentations = sys.modules.get("albumentations")
    if isinstance(transform, v1.Compose) or (albumentations and isinstance(transform, albumentations.Compose)):
        return transform
    if albumentations and isinstance(transform, albumentations.BasicTransform):
        return albumentations.Compose([transform])
    if not callable(transform):
        raise ValueError(
            f"transform is {transform!r:.80}, expected a Compose of torchvision (v1 or v2) or albumentations, or a "
            f"function that turns a picture into a tensor."
        )
    return v1.Compose([transform])


def check_tensor(made: Any) -> None:
    """Raise a ``ValueError`` unless this is what a transform should make of a picture: floats, ``(3, H, W)``."""
    import torch

    if isinstance(made, torch.Tensor) and made.is_floating_point() and made.ndim == 3 and made.shape[0] == 3:
        return
    shape = tuple(made.shape) if hasattr(made, "shape") else ""
    kind = made.dtype if isinstance(made, torch.Tensor) else type(made).__name__
    raise ValueError(
        f"The transform makes {kind} {shape} of a picture, expected a tensor of floating-point numbers (3, H, W): let "
        f"it end with ToTensor(), with v2.ToImage() and v2.ToDtype(torch.float32, scale=True), or, of albumentations, "
        f"with Normalize() and ToTensorV2()."
    )
