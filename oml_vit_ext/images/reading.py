"""Image files to pixels, the one place that opens them: upright, in RGB and whole, or an error that says why."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from oml_vit_ext.images.formats import reads_heic

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a file for a decompression bomb: 537 MB in RGB
MAX_RATIO = 200  # of the longer side to the shorter one: lines and rulers of web pages, not panoramas

_AT_ONCE = 2**20  # pixels

MISSING = "missing"
_RUN_PROGRAMS = ("EPS",)  # Ghostscript, and what the file tells it to do
FULL_SIZE = "full_size"  # key in ``info`` of what ``read_image`` returns: width and height, which a crop remembers

_PHOTOMETRIC = 262  # tag of TIFF: 0 where white is zero
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: str | Path | bytes) -> Image.Image:
    """The picture as a viewer shows it: upright by its EXIF orientation, in RGB.

    Damaged EXIF data are ignored. Transparent parts are white. Grey of 16 or 32 bits is scaled to 8, see
    :func:`grey_to_8_bits`. Of animated files it is the first frame. The picture's ``info`` holds ``FULL_SIZE`` alone.

    Args:
        source: A file, or its content.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is no image, was cut short, or is damaged.
        ValueError: It has too many pixels, or is too long and narrow.
    """
    with open_image(source) as image, _damage_told():
        picture = upright(to_rgb(image), orientation(image))
    picture.info[FULL_SIZE] = picture.size
    return picture


def read_array(source: str | Path | bytes) -> NDArray[np.uint8]:
    """:func:`read_image` as ``(height, width, 3)``, for albumentations."""
    return np.array(read_image(source))


def open_image(source: str | Path | bytes) -> Image.Image:
    """The image with its header read and its size checked, before any pixel is decoded. Close it, or use ``with``.

    Raises:
        As :func:`read_image`.
    """
    with _damage_told():
        image = _open(source)
    width, height = image.size
    reason = ""
    if width * height > MAX_PIXELS:
        reason = f"at most {MAX_PIXELS} pixels"
    elif max(width, height) > MAX_RATIO * min(width, height):
        reason = f"one side at most {MAX_RATIO} times the other"
    if reason:
        image.close()
        raise ValueError(f"the size is {width} x {height} px, expected {reason}")
    return image


@contextmanager
def _damage_told() -> Iterator[None]:
    """Whatever decoders raise on a damaged file is an OSError: they raise SyntaxError, RuntimeError and many more."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # sizes that a decoder reads by itself
        raise ValueError(str(error).rstrip(".")) from error
    except Exception as error:
        raise OSError(f"the file is damaged ({type(error).__name__}: {error})") from error


def _open(source: str | Path | bytes) -> Image.Image:
    try:
        image = _opened(source)
    except UnidentifiedImageError:
        if "HEIF" in Image.OPEN or not reads_heic():
            raise
        from pillow_heif import register_heif_opener

        register_heif_opener()  # here, because processes that load images are started afresh
        image = _opened(source)
    if image.format in _RUN_PROGRAMS:
        image.close()
        raise UnidentifiedImageError(f"{image.format} is not read, as another program would run to draw it")
    if isinstance(image, ImageFile.ImageFile) and image.format == "TIFF":
        image.filename = ""  # else Pillow maps turned grey ones into memory by their upright size: stripes
    return image


def _opened(source: str | Path | bytes) -> Image.Image:
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError("it is a folder, a pipe, a socket or a device")  # a pipe would be waited for
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except ValueError as error:
        if "MAX_TEXT_" not in str(error):
            raise
    # What a program has noted in a PNG, e.g. how it was generated, is more than Pillow takes; the picture is there.
    return Image.open(io.BytesIO(_without_texts(source if isinstance(source, bytes) else Path(source).read_bytes())))


def _without_texts(png: bytes) -> bytes:
    """The file without its chunks of text, which say nothing of the pixels."""
    kept, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image as Pillow will decode it, 1 to 8; 1 (upright) where it is missing or damaged."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _TURNS else 1
    except Exception:  # damaged EXIF data fail in many ways
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as its EXIF orientation says, without the note that asks for it."""
    turned = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image.copy()
    turned.info = {}
    return turned


def why_unreadable(error: Exception) -> str:
    """What is wrong with an image file, from the error of :func:`read_image` or :func:`open_image`."""
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"{type(error).__name__}: {error}"


def grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits as 8 bits: what the format takes for white is white.

    That is 65 535 for 16 bits. Of 32 bits no format says what white is, so the values decide: 255 if none is above it,
    else 65 535, else the largest one; for floating point 1, else 255, else the largest one. Black is 0, or the lowest
    value if that is negative.
    """
    values = np.asarray(image)
    blocks = _blocks(image)  # in float64, the whole image would take many times its size
    lowest = min(0.0, *(float(_finite(values[block]).min()) for block in blocks))
    highest = max(float(_finite(values[block]).max()) for block in blocks)
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        white = 65_535.0
    else:
        usual = (1.0, 255.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((w for w in usual if highest <= w), highest)
    grey = np.empty(values.shape, dtype=np.uint8)
    for block in blocks:
        scaled = (_finite(values[block]) - lowest) / max(white - lowest, 1e-12)
        if _white_is_zero(image):
            scaled = 1 - scaled
        grey[block] = np.rint(scaled * 255).clip(0, 255)
    return Image.fromarray(grey)


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _blocks(image: Image.Image) -> list[slice]:
    """Rows of an image that are worked on together."""
    width, height = image.size
    n_rows = max(1, _AT_ONCE // width)
    return [slice(start, min(start + n_rows, height)) for start in range(0, height, n_rows)]


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF counts from white to black, as scans do; Pillow minds it in 1 and 8 bits alone."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC, 1) == 0


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: transparent parts white, grey of 16 or 32 bits scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = grey_to_8_bits(image)
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # a grey value of PNG
            grey.paste(255, mask=Image.fromarray(np.asarray(image) == clear))
        return grey.convert("RGB")
    if image.has_transparency_data:
        image.load()
        opaque = Image.new("RGB", image.size)
        for block in _blocks(image):
            with_alpha = image.crop((0, block.start, image.width, block.stop)).convert("RGBA")
            on_white = Image.alpha_composite(Image.new("RGBA", with_alpha.size, "white"), with_alpha)
            opaque.paste(on_white.convert("RGB"), (0, block.start))
        return opaque
    return image.convert("RGB")
