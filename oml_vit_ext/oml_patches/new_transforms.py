"""Repair of OML: its data sets of images take ``torchvision.transforms.v2`` where they take v1."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from oml.datasets.images import ImageBaseDataset

from oml_vit_ext.oml_patches.replacing import replace
from oml_vit_ext.transforms.compose import as_known_compose


def take_new_transforms() -> None:
    """Apply the repair; calling it again changes nothing."""

    def wrap(original: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(original)

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            given = signature.bind(self, *args, **kwargs)
            transform = given.arguments.get("transform")
            known = as_known_compose(transform)
            if known is not transform:
                given.arguments["transform"] = known
                given.arguments.pop("f_imread", None)  # chosen for what looked like albumentations
            original(*given.args, **given.kwargs)

        return __init__

    replace(ImageBaseDataset, "__init__", wrap, "data sets of images take torchvision.transforms.v2")
