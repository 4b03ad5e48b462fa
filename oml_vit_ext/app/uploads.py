"""What somebody uploads, as an image, or one sentence on why not."""

from __future__ import annotations

import threading

from PIL import Image

from oml_vit_ext.images.reading import read_image, why_unreadable

_DECODING = threading.Lock()  # one at a time: a decoded image may take 537 MB

Box = tuple[float, float, float, float]


class BadUpload(ValueError):
    """It cannot be searched; the sentence is for whoever uploaded it."""


def read_upload(content: bytes) -> Image.Image:
    """The upright RGB image of an uploaded file; its pixels are bounded as everywhere in this package.

    Raises:
        BadUpload: It is empty, no image, cut short, too large or too narrow.
    """
    if not content:
        raise BadUpload("The upload is empty, expected an image, e.g. a JPEG file.")
    try:
        with _DECODING:
            return read_image(content)
    except Exception as error:  # decoders raise whatever they like on broken files
        reason = why_unreadable(error).rstrip(".")
        raise BadUpload(
            f"The upload cannot be read as an image ({reason}), expected e.g. a whole JPEG file."
        ) from error


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of an image inside a box.

    Args:
        image: Upright.
        box: Left, top, right, bottom, as shares of width and height, from 0 to 1.

    Raises:
        BadUpload: The box lies outside, or nothing is left.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadUpload(
            f"The crop is {', '.join(f'{value:g}' for value in box)}, expected left, top, right, bottom from 0 to 1, "
            f"left before right and top before bottom."
        )
    width, height = image.size
    pixels = (int(left * width), int(top * height), round(right * width), round(bottom * height))
    if pixels[2] - pixels[0] < 1 or pixels[3] - pixels[1] < 1:
        raise BadUpload(f"The crop leaves nothing of an image of {width} x {height} px: choose a larger part.")
    return image.crop(pixels)
