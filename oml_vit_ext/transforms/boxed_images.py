"""Image files, or the parts of them inside boxes, as tensors: a data set of OML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from oml.datasets.images import ImageBaseDataset

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.transforms.upright import reader_for


class BoxedImages(ImageBaseDataset):
    """OML's data set, with images read as this package reads them, and boxes cut at the borders of the images.

    OML itself takes black for what lies outside, and of albumentations the pixels from the other side.

    Args:
        paths: Of image files.
        boxes: Left, upper, right and lower in px of the upright image; ``None`` for the whole.
        transform: A ``Compose`` of torchvision or albumentations.
        reader: In the place of this package's.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        boxes: Sequence[Box | None] | None,
        transform: Any,
        reader: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(
            paths=list(paths),
            bboxes=None if boxes is None else list(boxes),
            transform=transform,
            f_imread=reader or reader_for(transform),
        )

    def __getitem__(self, item: int) -> dict[str, Any]:
        picture = self._f_imread(self.read_bytes(self._paths[item]))
        box = None if self._bboxes is None else self._bboxes[item]
        if box is not None:
            picture = crop_inside(picture, box)
        return {self.input_tensors_key: transformed(self._transform, picture), self.index_key: item}


def transformed(transform: Any, picture: Any) -> Any:
    """What a ``Compose`` makes of a picture, or of an array for albumentations."""
    return transform(image=picture)["image"] if isinstance(picture, np.ndarray) else transform(picture)


def crop_inside(picture: Any, box: Box) -> Any:
    """The part of a picture, or of an array, that is inside the box and inside of itself.

    Raises:
        ValueError: There is none.
    """
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
    left, upper, right, lower = max(0, box[0]), max(0, box[1]), min(box[2], width), min(box[3], height)
    if left >= right or upper >= lower:
        raise ValueError(f"its box {tuple(box)} holds nothing of the image of {width} x {height} px")
    is_array = isinstance(picture, np.ndarray)
    return picture[upper:lower, left:right] if is_array else picture.crop((left, upper, right, lower))
