"""The photo upright: the first step of our transforms, and the reader that goes with transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torchvision.transforms as t
from PIL import Image
from torch import nn

from oml_vit_ext.images.reading import orientation, read_array, read_image, to_rgb, upright


class Upright(nn.Module):
    """Turns a photo as its EXIF orientation says, and brings it into RGB; damaged EXIF data are ignored.

    Among the transforms of one of OML's data sets it also asks for this package's reader, which turns the photo
    itself, so that boxes speak of the upright image; then nothing is left to do here.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        turn = orientation(image)
        if image.mode != "RGB" or image.has_transparency_data:
            image = to_rgb(image)
        return image if turn == 1 else upright(image, turn)


def reader_for(transform: Any) -> Callable[[Any], Any]:
    """This package's reader in the form that a transform takes: pictures for torchvision, arrays for albumentations."""
    return read_image if isinstance(transform, t.Compose) else read_array


def asks_for_upright(transform: Any) -> bool:
    """Whether :class:`Upright` is one of the steps."""
    return any(isinstance(step, Upright) for step in getattr(transform, "transforms", ()))
