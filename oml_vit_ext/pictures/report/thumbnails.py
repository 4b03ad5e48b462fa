"""Small pictures inside a page, of the images of one of OML's data sets."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

from PIL import Image

from oml_vit_ext.common.progress import progress
from oml_vit_ext.images.reading import read_image

SIDE = 144  # px at most: sharp at 112 px on most screens
_QUALITY = 70


def thumbnails(dataset: Any, image_ids: Iterable[int], side: int = SIDE, *, verbose: bool = False) -> dict[int, str]:
    """``data:`` URIs of WebP pictures by the ids of the images; one that cannot be read is left out.

    Args:
        dataset: One of OML's, of images.
        image_ids: Which of them.
        side: The longer side, px; smaller images stay as they are.
        verbose: Show a progress bar.
    """
    images = getattr(dataset, "_dataset", dataset)
    boxes = images._bboxes
    found = {}
    for i in progress(sorted(set(image_ids)), desc="Thumbnails", unit=" images", verbose=verbose):
        try:
            picture = read_image(images._paths[i])
        except (OSError, ValueError):
            continue
        if boxes is not None and boxes[i] is not None:
            left, top, right, bottom = map(int, boxes[i])
            picture = picture.crop((left, top, right, bottom))
        found[i] = data_uri(picture, side)
    return found


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """The picture, made small, as text that stands for its file."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, format="WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
