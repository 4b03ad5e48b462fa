"""Where the model of an index looks, as pictures of the query and of its hits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from oml_vit_ext.common.arrays import Box
from oml_vit_ext.pictures import attention_maps, enlarge_maps, map_stride, mean_and_std, overlay, to_picture
from oml_vit_ext.retrieval import Embedder
from oml_vit_ext.transforms.boxed_images import BoxedImages


def attention_pictures(
    embedder: Embedder, files: Sequence[Path], boxes: Sequence[Box | None] | None = None
) -> list[Image.Image]:
    """Each image as the model sees it, in grey, with its attention in colours over it.

    Args:
        embedder: Its extractor is ``irt`` or ``hybrid_vit``, or one around them.
        files: Image files.
        boxes: The parts of them that count, px, cut at the borders as in the index.

    Raises:
        TypeError, ValueError: The attention of this extractor cannot be read.
    """
    images = BoxedImages(files, boxes, embedder.transform)
    mean, std = mean_and_std(embedder.transform)
    stride = map_stride(embedder.extractor)  # type: ignore[arg-type]
    pictures = []
    for i in range(len(images)):
        image = torch.as_tensor(images[i][images.input_tensors_key])
        maps = attention_maps(embedder.extractor, image[None].to(embedder.device))  # type: ignore[arg-type]
        pixel_map = enlarge_maps(maps.cpu(), (image.shape[1], image.shape[2]), stride)[0]
        laid_over = overlay(to_picture(image, mean, std), pixel_map)
        pictures.append(Image.fromarray((255 * laid_over).clip(0, 255).astype(np.uint8)))
    return pictures
